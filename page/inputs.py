"""Inputs of our own: a picture that fails in a sentence, and a list whose API schema says what it holds."""

from typing import Any

import gradio as gr

from .language import say


class SafeImage(gr.Image):
    """An image input whose unreadable files end in one sentence instead of a server path."""

    def preprocess(self, payload: Any) -> Any:
        """As gr.Image, but any failure becomes a sentence."""
        try:
            return super().preprocess(payload)
        except Exception as error:
            raise gr.Error(say("This file is not a picture we can read; try a JPEG or PNG."), print_exception=False) from error

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
