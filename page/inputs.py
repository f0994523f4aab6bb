"""Inputs of our own: a picture that is not opened before the model does, and a list whose API schema says what it holds."""

from typing import Any

import gradio as gr

from .language import refusal


class SafeImage(gr.Image):
    """An image input that hands on the file as it came; whoever opens it says in one sentence why it cannot be read."""

    def preprocess(self, payload: Any) -> str | None:
        """Path of the uploaded file. Raises gr.Error for anything but a file."""
        if payload is None:
            return None
        if payload.path:
            return str(payload.path)
        raise refusal("This file is not a picture we can read, or it is damaged; try a JPEG or PNG.")

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary image component."""
        return "image"


class Texts(gr.JSON):
    """A list of texts, for machines; gr.JSON alone does not say what it holds."""

    def api_info(self) -> dict[str, Any]:
        """JSON schema of the value."""
        return {"type": "array", "items": {"type": "string"}, "description": "a list of texts"}

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary JSON component."""
        return "json"
