"""Where weights come from: the embedded starter, a folder, or the Hub (a revision can be pinned). What cannot be had says so."""

import contextlib
import hashlib
import io
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
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
from .model import MustiModel
from .processing import MustiProcessor

STARTER = Path(__file__).parents[1] / "assets" / "starter"
_HUB_ID = re.compile(r"^[\w.\-]+/[\w.\-]+(@[\w.\-/]+)?$")
FILES = ["*.json", "*.txt", "model.safetensors", "README.md"]  # the card is shown on the page


@dataclass(frozen=True)
class Weights:
    """A folder of weights, and what to call it: name and revision (commit of the Hub, or a fingerprint of the file)."""

    folder: Path | None
    name: str
    revision: str

    def card(self) -> dict[str, Any]:
        """Measured scores and caveat, from ``metrics.json`` beside the weights; {} when there is none or it makes no sense (others write it)."""
        try:
            values = json.loads((self.folder / "metrics.json").read_text(encoding="utf-8")) if self.folder else {}
        except (OSError, ValueError):
            return {}
        return values if isinstance(values, dict) else {}

    def load(self) -> tuple[MustiModel, MustiProcessor]:
        """Builds the model and the processor. Raises WeightsError for a folder that is incomplete or corrupt."""
        try:
            config = MustiConfig.load(self.folder)  # refuses unknown keys, which the mixin would drop
            if not (self.folder / "model.safetensors").is_file():
                raise FileNotFoundError("model.safetensors is missing")
            with contextlib.redirect_stdout(io.StringIO()):  # the mixin prints a line, which would spoil --json
                model = MustiModel.from_pretrained(self.folder, strict=True, map_location="cpu")
            return model, MustiProcessor.from_pretrained(self.folder, config)
        except Exception as error:  # safetensors, JSON, tokenizer and shape errors have no common base
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise WeightsError("The weights {name} are incomplete or damaged ({reason}); get them again.", name=self.name, reason=reason) from error


def find_weights(source: str | Path | None = None) -> Weights:
    """See MustiPipeline.from_pretrained. Raises WeightsError."""
    source = source or os.environ.get("MUSTI_MODEL") or STARTER
    folder = Path(source)
    if folder.is_dir():
        name = "embedded starter" if folder.resolve() == STARTER.resolve() else str(source)
        return Weights(folder, name, _fingerprint(folder / "model.safetensors"))
    if not _HUB_ID.match(str(source)):
        raise WeightsError("There are no weights at {source}; give a folder or a Hub id such as user/name.", source=source)
    repo, _, revision = str(source).partition("@")
    return Weights(*_download(repo, revision or None))


def _fingerprint(file: Path) -> str:
    if not file.is_file():
        raise WeightsError("There is no model.safetensors in {folder}; give a folder that holds weights.", folder=file.parent)
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()[:12]


def _download(repo: str, revision: str | None) -> tuple[Path, str, str]:
    """-> folder, name, commit."""
    try:
        # One small file first: with no network only the cache is asked, which fails at once, not after half a minute of retries.
        cached = not reachable(repo, revision)
        config = huggingface_hub.hf_hub_download(repo, "config.json", revision=revision, etag_timeout=5, local_files_only=cached)
        commit = Path(config).parent.name
        folder = Path(huggingface_hub.snapshot_download(repo, revision=commit, allow_patterns=FILES, local_files_only=cached))
    except WeightsError:
        raise
    except GatedRepoError as error:
        raise WeightsError("The weights {repo} are gated; accept their terms on the Hub and set HF_TOKEN.", repo=repo) from error
    except RevisionNotFoundError as error:
        raise WeightsError("The weights {repo} have no revision {revision}; check it on the Hub.", repo=repo, revision=revision) from error
    except RepositoryNotFoundError as error:
        raise WeightsError("There are no weights {repo} on the Hub, or they are private; check the name or set HF_TOKEN.", repo=repo) from error
    except LocalEntryNotFoundError as error:
        raise WeightsError("The Hub cannot be reached and {repo} is not in the cache; check the network.", repo=repo) from error
    except EntryNotFoundError as error:
        raise WeightsError("{repo} on the Hub holds no config.json; it is not a model of this project.", repo=repo) from error
    except Exception as error:  # the client's HTTP library has errors of its own for a download that breaks off
        raise WeightsError("The weights {repo} could not be fetched from the Hub ({reason}); try again.", repo=repo, reason=type(error).__name__) from error
    return folder, repo, folder.name


def reachable(repo: str, revision: str | None) -> bool:
    """Whether the Hub answers, be it with a refusal; asked once, without the client's retries. Raises WeightsError for a Hub in trouble."""
    try:
        huggingface_hub.get_hf_file_metadata(huggingface_hub.hf_hub_url(repo, "config.json", revision=revision), timeout=5)
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code >= 500:
            raise WeightsError("The Hub has trouble just now (status {status}); try again later.", status=error.response.status_code) from error
        return True  # the download tells what it is
    except Exception:  # no name, no route, no answer in time, offline mode: the client's HTTP library has a class for each
        return False
    return True
