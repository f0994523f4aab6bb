"""Inputs of our own: pictures and files that are not opened before the model does, and a list whose API schema says
what it holds."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from gradio.data_classes import ListFiles

from .calls import MOST_PICTURES
from .language import later, refusal, refusing
from .uploads import upload_of, with_uploads


class SafeImage(gr.Image):
    """An image input that hands on the file as it came; whoever opens it says in one sentence why it cannot be read."""

    def preprocess(self, payload: Any) -> str | None:
        """Path of the uploaded file. Raises gr.Error for anything but an upload."""
        return None if payload is None else refusing(lambda: upload_of(payload.path, payload.url))

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary image component."""
        return "image"


class SafeFile(gr.File):
    """A file input that hands on files as they came."""

    @property
    def most(self) -> int:
        """How many files it takes."""
        return MOST_PICTURES if self.file_count == "multiple" else 1

    def preprocess(self, payload: Any) -> str | list[str] | None:
        """Path of the uploaded file, or a list of paths where several may be given. Raises gr.Error for anything but
        uploads."""
        if payload is None:
            return None
        files = list(payload) if isinstance(payload, ListFiles) else [payload]
        paths = refusing(lambda: [upload_of(f.path, f.url) for f in files])
        return paths if self.most > 1 else next(iter(paths), None)

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary file component."""
        return "file"


class Texts(gr.JSON):
    """A list of texts, for machines; gr.JSON alone does not say what it holds."""

    def api_info(self) -> dict[str, Any]:
        """JSON schema of the value."""
        return {"type": "array", "items": {"type": "string"}, "description": "a list of texts"}

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary JSON component."""
        return "json"


def checked(components: Sequence[gr.blocks.Block], values: Any) -> list[Any]:
    """What a call gave for these inputs, in a shape that they can take, and with no file but uploads; before Gradio
    copies, hashes or fetches anything.

    Raises: gr.Error.
    """
    if not isinstance(values, list) or len(values) != len(components):
        given = len(values) if isinstance(values, list) else 0
        raise refusal(later("This call takes {count} values, not {given}."), count=len(components), given=given)
    for component, value in zip(components, values, strict=True):
        if isinstance(component, SafeFile) and isinstance(value, list) and len(value) > component.most:
            raise refusal(
                later("There are {count} files; at most {most} can be given at a time."),
                count=len(value),
                most=component.most,
            )
        if isinstance(component, gr.Textbox) and not isinstance(value, str | None):
            raise refusal(later("“{name}” takes a text."), name=component.label or component.elem_id or "")
    return refusing(lambda: [with_uploads(value) for value in values])
