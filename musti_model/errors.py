"""Errors that people read: one sentence, what is wrong and what to do."""

from typing import Any


class Sentence(str):
    """A text with values filled in, which keeps its template, so that a page can say it in another language.

    template: for ``str.format``, or, without values, the text as it is; values: what its fields hold. The text itself
    is the English sentence.
    """

    template: str
    values: dict[str, Any]

    def __new__(cls, template: str, /, **values: Any) -> "Sentence":
        """Raises KeyError for a field without a value."""
        text = super().__new__(cls, template.format(**values) if values else template)
        text.template, text.values = template, values
        return text

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        """How it is pickled and copied."""
        return (self.template,), self.values


class _SentenceError(Exception):
    """An error whose message is a ``Sentence``; takes a template and its values."""

    def __init__(self, template: str, /, **values: Any) -> None:
        super().__init__(template if isinstance(template, Sentence) else Sentence(template, **values))


class InputError(_SentenceError, ValueError):
    """A picture or a passage that cannot be used."""


class WeightsError(_SentenceError, RuntimeError):
    """Weights that cannot be had: missing, private, offline, or corrupt."""
