"""Where weights come from: the embedded starter, a folder, or the Hub (a revision can be pinned). What cannot be had
says so."""

import contextlib
import hashlib
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from .config import MustiConfig
from .errors import WeightsError
from .folder import file_in, read_json, read_text
from .model import MustiModel
from .processing import MustiProcessor

_INSTALLED, _CLONED = Path(__file__).parent / "starter", Path(__file__).parents[1] / "assets" / "starter"
STARTER = _INSTALLED if _INSTALLED.is_dir() else _CLONED
EMBEDDED = "embedded starter"  # what its weights are called
_HUB_ID = re.compile(r"^[\w.\-]+/[\w.\-]+(@[\w.\-/]+)?$")
TRIED = "The roses smelled sweet."  # what newly loaded weights are asked
FILES = ["*.json", "*.txt", "model.safetensors", "README.md"]  # the card is shown on the page


@dataclass(frozen=True)
class Weights:
    """A folder of weights, and what to call it: name and revision (commit of the Hub, or a fingerprint of the file)."""

    folder: Path | None
    name: str
    revision: str

    def card(self) -> dict[str, Any]:
        """Measured scores and caveat, from ``metrics.json`` beside the weights; {} when there is none or it makes no
        sense (others write it)."""
        try:
            values = read_json(self.folder, "metrics.json") if self.folder else {}
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def readme(self) -> str:
        """The card that people read, ``README.md`` beside the weights, as others wrote it; "" when there is none."""
        try:
            return read_text(self.folder, "README.md") if self.folder else ""
        except (OSError, ValueError):
            return ""

    @property
    def own_folder(self) -> Path:
        """``folder``. Raises ValueError where there is none."""
        if self.folder is None:
            raise ValueError("These weights lie in no folder; there is nothing to load.")
        return self.folder

    def load(self) -> tuple[MustiModel, MustiProcessor]:
        """Builds the model and the processor, and tries them once. Raises WeightsError for a folder that is incomplete
        or corrupt."""
        folder = self.own_folder
        try:
            config = MustiConfig.load(folder)
            processor = MustiProcessor.from_pretrained(folder, config)
            with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints a line, which would spoil --json
                model = MustiModel.from_pretrained(folder, strict=True, map_location="cpu")
            _try(model, processor)
            return model, processor
        except Exception as error:  # safetensors, JSON, tokenizer and shape errors have no common base
            raise self._refused(error) from error
        except BaseException as error:
            # of a library in Rust, which takes it for worse than an Exception
            if type(error).__name__ != "PanicException":
                raise
            raise self._refused(error) from error

    def _refused(self, error: BaseException) -> WeightsError:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        # names in the files may hold a terminal's commands
        reason = "".join(c if c.isprintable() else " " for c in first)[:300].rstrip(". ")
        return WeightsError(
            "The weights {name} are incomplete or damaged ({reason}); get them again.", name=self.name, reason=reason
        )


def _try(model: MustiModel, processor: MustiProcessor) -> None:
    """Raises ValueError for weights that are not all finite, or that give no number for a first pair, a black picture
    and a few words."""
    broken = [name for name, value in model.state_dict().items() if not value.isfinite().all()]
    if broken:
        raise ValueError(f"{len(broken)} tensors hold values that are not finite: {', '.join(broken[:3])}")
    texts = processor.passages([TRIED])
    images = {b.name: torch.zeros(1, 3, b.image_size, b.image_size) for b in model.config.branches}
    with torch.inference_mode():
        output = model(images, texts.input_ids, texts.attention_mask)
    if not output.logits.isfinite().all():
        raise ValueError("they give no number for a first pair")


def find_weights(source: str | Path | None = None) -> Weights:
    """See MustiPipeline.from_pretrained. Raises WeightsError."""
    source = source or os.environ.get("MUSTI_MODEL") or STARTER
    folder = Path(source)
    if os.path.isdir(folder):  # noqa: PTH112 (False also for a name too long for a file)
        name = EMBEDDED if folder.resolve() == STARTER.resolve() else str(source)
        return Weights(folder, name, _fingerprint(folder))
    if not _HUB_ID.match(str(source)):
        raise WeightsError(
            "There are no weights at {source}; give a folder or a Hub id such as user/name.", source=source
        )
    repo, _, revision = str(source).partition("@")
    return Weights(*_download(repo, revision or None))


def _fingerprint(folder: Path) -> str:
    try:
        with file_in(folder, "model.safetensors").open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except FileNotFoundError as error:
        raise WeightsError(
            "There is no model.safetensors in {folder}; give a folder that holds weights.", folder=folder
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(
            "The weights {name} are incomplete or damaged ({reason}); get them again.", name=folder, reason=error
        ) from error


def _download(repo: str, revision: str | None) -> tuple[Path, str, str]:
    """-> folder, name, commit."""
    try:
        # One small file first: with no network only the cache is asked, which fails at once, not after half a minute of
        # retries.
        cached = not reachable(repo, revision)
        config = huggingface_hub.hf_hub_download(
            repo, "config.json", revision=revision, etag_timeout=5, local_files_only=cached
        )
        commit = Path(config).parent.name
        folder = Path(
            huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=FILES, local_files_only=cached)
        )
    except WeightsError:
        raise
    except GatedRepoError as error:
        raise WeightsError(
            "The weights {repo} are gated; accept their terms on the Hub and set HF_TOKEN.", repo=repo
        ) from error
    except RevisionNotFoundError as error:
        raise WeightsError(
            "The weights {repo} have no revision {revision}; check it on the Hub.", repo=repo, revision=revision
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            "There are no weights {repo} on the Hub, or they are private; check the name or set HF_TOKEN.", repo=repo
        ) from error
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            "The Hub cannot be reached and {repo} is not in the cache; check the network.", repo=repo
        ) from error
    except EntryNotFoundError as error:
        raise WeightsError(
            "{repo} on the Hub holds no config.json; it is not a model of this project.", repo=repo
        ) from error
    except Exception as error:  # the client's HTTP library has errors of its own for a download that breaks off
        raise WeightsError(
            "The weights {repo} could not be fetched from the Hub ({reason}); try again.",
            repo=repo,
            reason=type(error).__name__,
        ) from error
    return folder, repo, folder.name


def reachable(repo: str, revision: str | None) -> bool:
    """Whether the Hub answers, be it with a refusal; asked once, without the client's retries. Raises WeightsError for
    a Hub in trouble."""
    try:
        huggingface_hub.get_hf_file_metadata(
            huggingface_hub.hf_hub_url(repo, "config.json", revision=revision), timeout=5
        )
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            raise WeightsError(
                "The Hub has trouble just now (status {status}); try again later.", status=error.response.status_code
            ) from error
        return True  # the download tells what it is
    except Exception:
        # no name, no route, no answer in time, offline mode: the client's HTTP library has a class for each
        return False
    return True
