"""What the browser gets: scripts and templates from their files, texts and pictures in a shape that a page may show.

HTML that takes more than a line is a template, which escapes by itself. A line of it is an f-string where it is needed,
and whatever a visitor, a file or weights brought into that goes through ``escape``.
"""

import base64
import io
import re
from html import escape
from pathlib import Path

import gradio as gr
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from .language import number, say

FOLDER = Path(__file__).parent
SIDE = 480  # px of a picture that goes along with a board


def script(name: str) -> str:
    """A JavaScript file of ``static/``."""
    return (FOLDER / "static" / name).read_text(encoding="utf-8")


def _tagged(text: str, /, **values: float) -> Markup:
    """A text of ours with tags in it, in the visitor's language; its values are numbers."""
    return Markup(say(text, **values))  # noqa: S704 (nothing of a visitor is in it)


TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
TEMPLATES.globals |= {"say": say, "tagged": _tagged, "number": number}


def render(name: str, **values: object) -> str:
    """A template of ``templates/`` (Jinja2) as HTML. Everything in it is escaped; it says its texts in the visitor's
    language."""
    return TEMPLATES.get_template(name).render(**values)


def template(name: str) -> str:
    """A Handlebars template of ``templates/``, which the browser fills. It escapes HTML, but Gradio then evaluates the
    whole as a JavaScript template: see ``literal``."""
    return (FOLDER / "templates" / name).read_text(encoding="utf-8")


def literal(text: str) -> str:
    """A text as a component's template may show it: without this a visitor's ``${...}`` would run, and a lone backslash
    or ``${`` break the page."""
    return re.sub(r"([\\$])", r"\\\1", text)


def data_url(image: Image.Image, side: int = SIDE) -> str:
    """A small JPEG of a picture as an address that fetches nothing."""
    small = image.copy()
    small.thumbnail((side, side))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def paragraph(text: str) -> str:
    """A sentence of ours in the visitor's language, as HTML."""
    return f"<p>{say(text)}</p>"


def alert(error: gr.Error) -> str:
    """What went wrong, as HTML."""
    return f'<div class="notice" role="alert">{escape(str(error.message))}</div>'
