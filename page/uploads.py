"""Which files a visitor may have opened: what was uploaded to this page, and the page's examples, which lie beside;
nothing else on this machine, and nothing from elsewhere."""

import base64
import binascii
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from musti_model import InputError
from musti_model.processing import MAX_BYTES

from .language import later

GONE = later("There is no such upload; it was deleted meanwhile, or never made. Upload the file again.")
ALLOWANCE = 1000  # characters of a data address before its data


def upload_of(path: Any, url: Any = None) -> str:
    """The file that a call names, as a path without links in it.

    Args:
        path: where it was put when it was uploaded; if there is none, url counts.
        url: its bytes as a data address (RFC 2397).

    Raises: InputError, the same one for all that is not an upload, whether such a file exists or not.
    """
    if not path and isinstance(url, str) and url[:5].lower() == "data:":
        return _saved(url)
    if any(
        isinstance(given, str) and given.strip().lower().startswith(("http:", "https:", "ftp:"))
        for given in (path, None if path else url)
    ):
        raise InputError("Nothing is fetched from other addresses; upload the file itself.")
    try:
        folder, found = Path(get_upload_folder()).resolve(), Path(path).resolve()
        if found.is_relative_to(folder) and found.is_file():
            return str(found)
    except (TypeError, ValueError, OSError, RuntimeError):
        # no name at all, one with a zero in it or too long, links in a circle
        pass
    raise InputError(GONE)


def _saved(url: str) -> str:
    """The file with the bytes of a data address. Raises InputError."""
    if len(url) > MAX_BYTES * 4 / 3 + ALLOWANCE:
        raise InputError(
            "The picture file has {size:.0f} MB; the limit is {limit:.0f} MB.",
            size=len(url) * 3 / 4e6,
            limit=MAX_BYTES / 1e6,
        )
    kind, _, text = url.partition(",")
    data = unquote_to_bytes(text)
    if kind.lower().endswith(";base64"):
        try:
            data = b"".join(data.split())
            data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
        except binascii.Error as error:
            raise InputError("The data address is damaged; encode the file again.") from error
    return save_bytes_to_cache(data, "upload", get_upload_folder())


def with_uploads(value: Any) -> Any:
    """What a call gave for one input, with every file in it checked and told by nothing but its path and name. Raises
    InputError."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise InputError("The text holds a broken character; copy it again.") from error
    if isinstance(value, list):
        return [with_uploads(v) for v in value]
    if not isinstance(value, dict):
        return value
    if "path" in value or "url" in value:
        path = upload_of(value.get("path"), value.get("url"))
        name = value.get("orig_name")
        return {
            "path": path,
            "orig_name": name if isinstance(name, str) else None,
            "meta": {"_type": "gradio.FileData"},
        }
    return {k: with_uploads(v) for k, v in value.items()}
