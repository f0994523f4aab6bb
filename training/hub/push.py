"""Files -> one commit on the Hub, or one sentence on why there is none."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id


class PublishError(RuntimeError):
    """A run that is not fit to be published, or a Hub that did not take it: one sentence."""


def push(
    files: dict[str, Path], repo: str, revision: str | None, private: bool, message: str, repo_type: str = "model"
) -> str:
    """One commit with all ``files`` -> its hash. Figures of an earlier push that are not among them go with the same
    commit. repo_type: "model", or "space" for one of Gradio.

    Raises: PublishError; then no commit was made.
    """
    api = HfApi()
    try:
        sdk = "gradio" if repo_type == "space" else None
        api.create_repo(repo, private=private or None, exist_ok=True, repo_type=repo_type, space_sdk=sdk)
        if private and not api.repo_info(repo, repo_type=repo_type).private:
            raise PublishError(f"{repo} exists and is public; make it private on the Hub, or leave out --private.")
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True, repo_type=repo_type)
        there = api.list_repo_files(repo, revision=revision, repo_type=repo_type)
        gone = [CommitOperationDelete(path) for path in there if path.startswith("figures/") and path not in files]
        added = [CommitOperationAdd(path, file) for path, file in files.items()]
        # Not upload_folder, which may spread a folder over several commits: a pinned commit must hold all of a model or
        # nothing of it.
        return api.create_commit(
            repo, [*gone, *added], commit_message=message, revision=revision, repo_type=repo_type
        ).oid
    except PublishError:
        raise
    except Exception as error:  # the client, its HTTP library and its storage library have errors of their own
        raise PublishError(_sentence(error, repo)) from error


def _sentence(error: Exception, repo: str) -> str:
    chain = _chain(error)
    status = next(
        (e.response.status_code for e in chain if isinstance(e, HfHubHTTPError) and e.response is not None), None
    )
    if status in (401, 403):
        return f"The Hub does not let you write to {repo} (status {status}); log in or set HF_TOKEN with write access."
    if status == 404:
        return f"The Hub knows no user or organisation {repo.split('/')[0]} that could hold {repo}; check the name."
    if status is not None:
        return (
            f"The upload to {repo} broke off (the Hub answered with status {status}); nothing was committed, so "
            "give the command again."
        )
    # By name: the client has changed its HTTP library before.
    if any(
        isinstance(e, OfflineModeIsEnabled) or type(e).__name__ in ("ConnectError", "ConnectTimeout") for e in chain
    ):
        return "The Hub cannot be reached, or HF_HUB_OFFLINE is set; check the network and give the command again."
    return f"The upload to {repo} broke off ({type(error).__name__}: {_first_line(error)}); give the command again."


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error and what caused it: the client wraps the errors of single files."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no reason given"])[0][:160]


def check_name(repo: str) -> None:
    """Raises PublishError for what is no user/name."""
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise PublishError(
            f"{repo} is no name for the Hub; give user/name of letters, digits, '-', '_' and '.'."
        ) from error
    if "/" not in repo:
        raise PublishError(f"{repo} lacks the user or the organisation; give user/name.")
