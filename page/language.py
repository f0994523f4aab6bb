"""The page in the visitor's language. English texts stand in the code and are the keys of ``languages/*.json``; what
has no translation stays English.

``say`` translates a text now. ``later`` only marks one, where a constant is written down before there is a visitor
(gettext's ``N_``). ``refusal`` is an error that says a text, and ``refusing`` calls a function so that every error of
its becomes one. Components are built in English, and ``translate_on_load`` has all of them say their texts to whoever
opens the page; ``Told`` is the one whose HTML a function makes.
"""

import errno
import functools
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any
from urllib.parse import parse_qs

import gradio as gr
from gradio.context import LocalContext

from musti_model import InputError, Sentence, WeightsError

from .visit import UNSEEN

FOLDER = Path(__file__).parent / "languages"
FIXED: ContextVar[str] = ContextVar("language", default="")  # instead of the visitor's
NAMES = {"en": "English", "de": "Deutsch", "fr": "Français", "it": "Italiano", "sl": "Slovenščina"}
SPEAK = Path(__file__).parent / "static" / "speak.js"
LONGEST_HEADER = 1000  # characters of Accept-Language that are read
TEXTS = ("label", "info", "placeholder", "alt_text")  # properties of components that people read


@functools.cache
def translations() -> dict[str, dict[str, str]]:
    """{language tag: {English template: translation}}, of all languages but English."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def chosen(accepted: str) -> str:
    """The language of ours that an Accept-Language header (RFC 9110, 12.5.4) likes best; "en" where it names none."""
    liked = []
    for at, part in enumerate(accepted[:LONGEST_HEADER].lower().split(",")):
        found = re.fullmatch(r"\s*([a-z]+)(?:-[a-z0-9-]+)?\s*(?:;\s*q\s*=\s*([01](?:\.[0-9]*)?)\s*)?", part)
        if found:
            liked.append((-float(found[2] or 1), at, found[1]))
    return next(
        (tag for weight, _, tag in sorted(liked) if weight < 0 and (tag == "en" or tag in translations())), "en"
    )


@contextmanager
def language_set(tag: str) -> Iterator[None]:
    """Within, all is said in one language, whoever the visitor is."""
    token = FIXED.set(tag)
    try:
        yield
    finally:
        FIXED.reset(token)


def in_language(tag: str, function: Callable[[], Any]) -> Any:
    """Calls a function that says all in one language, whoever the visitor is."""
    with language_set(tag):
        return function()


def accepted_by(request: Any) -> str:
    """The language of a request's page; "en" where there is none."""
    return wanted(getattr(request, "headers", None) or {})


def wanted(headers: Mapping[str, str]) -> str:
    """The language that the address of the page asks for (``?lang=de``), else the one that the browser likes best."""
    asked = parse_qs(headers.get("referer", "")[:LONGEST_HEADER].partition("?")[2]).get("lang", [""])[-1]
    return asked if asked in NAMES else chosen(headers.get("accept-language", ""))


def switch_html() -> str:
    """Links to this page in each language; the current one is marked."""
    here = language()
    links = [
        f'<a href="?lang={tag}" lang="{tag}" hreflang="{tag}"{" aria-current=true" if tag == here else ""}>{name}</a>'
        for tag, name in NAMES.items()
    ]
    return f'<nav class="languages" aria-label="{say("Language of this page")}">{" ".join(links)}</nav>'


def language() -> str:
    """The language of the visitor whose message is being answered; "en" outside of one."""
    if FIXED.get():
        return FIXED.get()
    return accepted_by(LocalContext.request.get(None))


def later(text: str) -> str:
    """Marks a text that is said elsewhere, for whoever collects the texts to translate."""
    return text


NO_ROOM = later("There is no room left on the disk of this server; try again later.")


def say(text: str, /, **values: Any) -> str:
    """A text in the visitor's language.

    Args:
        text: an English template for ``str.format``, or, without values, a plain text, or a ``Sentence``, whose own
            values count.
        values: what the template's fields hold; those that are a ``Sentence`` are translated as well.
    """
    english, values = (text.template, text.values) if isinstance(text, Sentence) else (text, values)
    template = translations().get(language(), {}).get(english, english)
    return (
        _FORMATTER.format(template, **{k: say(v) if isinstance(v, Sentence) else v for k, v in values.items()})
        if values
        else template
    )


class _Formatter(Formatter):
    """As ``str.format``, with decimals as the visitor's language writes them."""

    def format_field(self, value: Any, format_spec: str) -> str:
        text = super().format_field(value, format_spec)
        return text.replace(".", ",") if isinstance(value, float) and language() != "en" else text


_FORMATTER = _Formatter()


def number(value: float, form: str) -> str:
    """A number as the visitor's language writes it. form: of ``format``."""
    return _FORMATTER.format_field(float(value), form)


def refusal(text: str, /, **values: Any) -> gr.Error:
    """What to raise for a visitor to read; see ``say``."""
    return gr.Error(say(text, **values), title=say("Error"), print_exception=False)


def no_room(error: BaseException | None) -> bool:
    """Whether an error, or one that led to it, says that the disk is full."""
    return error is not None and (
        (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or no_room(error.__cause__)
    )


def refusing(function: Callable[[], Any]) -> Any:
    """Calls a function; whatever it raises becomes a ``refusal``."""
    try:
        return function()
    except gr.Error:
        raise
    except (InputError, WeightsError) as error:
        raise refusal(error.args[0]) from error
    except Exception as error:  # no memory left on the device, say: the log tells more than the page should
        logging.getLogger(__name__).exception("a question could not be answered")
        raise refusal(
            NO_ROOM
            if no_room(error)
            else later("This pair could not be answered; try a smaller picture or another one.")
        ) from error


# Components: built once in English, told their texts anew for each visit ----------------------------------------------


class Told(gr.HTML):
    """HTML made by a function, which says it in the visitor's language."""

    def __init__(self, tell: Callable[[], str], **named: Any) -> None:
        super().__init__(tell(), **named)
        self.tell = tell

    def get_block_name(self) -> str:
        """The front end draws it as the ordinary HTML component."""
        return "html"


def texts_of(component: gr.blocks.Block) -> dict[str, Any]:
    """The properties of a component that hold texts to translate: {property: text, list of texts, or list of (text,
    value)}."""
    found = {name: getattr(component, name, None) for name in TEXTS}
    if isinstance(component, (gr.Button, gr.Markdown)) or (
        isinstance(component, gr.HTML) and isinstance(component.value, Sentence)
    ):
        found["value"] = component.value
    found["choices"] = getattr(component, "choices", None)
    if isinstance(component, gr.Dataset):
        found["headers"] = component.headers
    return {name: held for name, held in found.items() if held}


def parts_of(held: Any) -> Iterator[str]:
    """The single texts of a property."""
    for item in held if isinstance(held, list) else [held]:
        yield item[0] if isinstance(item, tuple) else item


def _said(held: Any) -> Any:
    if isinstance(held, list):
        return [(say(item[0]), item[1]) if isinstance(item, tuple) else say(item) for item in held]
    return say(held)


def said_texts(component: gr.blocks.Block) -> dict[str, Any]:
    """The texts of a component in the visitor's language, as properties to update."""
    if isinstance(component, Told):
        return {"value": component.tell()}
    return {name: _said(held) for name, held in texts_of(component).items()}


def translate_on_load(demo: gr.Blocks, switch: gr.HTML) -> None:
    """Has the page of ``demo``, which is complete and open, say all its texts in the language of whoever opens it, and
    in another when that is chosen. switch: the component that says it by a click; see ``static/languages.js``."""
    told = [b for b in demo.blocks.values() if isinstance(b, Told) or texts_of(b)]
    tag, title, english = gr.Textbox(visible=False), gr.Textbox(visible=False), str(demo.title)

    def translate(built: bool) -> list[Any]:
        """built: in English, as every page comes."""
        if built and language() == "en":
            return ["en", english, *[gr.skip() for _ in told]]
        return [language(), say(english), *[gr.update(**said_texts(b)) for b in told]]

    for event, built in ((demo.load, True), (switch.click, False)):
        spoken = event(
            partial(translate, built),
            None,
            [tag, title, *told],
            queue=False,
            **UNSEEN,
            api_visibility="private",
        )
        spoken.then(None, [tag, title], None, js=SPEAK.read_text(encoding="utf-8"), api_visibility="private")
