"""A link that reopens an example with the chosen settings. Uploads have none: they are not kept."""

import math
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from musti_model import InputError

Choices = dict[str, list[Any]]  # setting: the values that it may have


def query_of(question: tuple[str, str], examples: list[tuple[Path, str]], settings: dict[str, Any]) -> str:
    """``?example=2&...`` of what stands on the page. Raises InputError for anything but an example."""
    for number, (picture, passage) in enumerate(examples, start=1):
        if question[1] == passage and Path(question[0]).read_bytes() == picture.read_bytes():
            return "?" + urlencode({"example": number} | {k: v for k, v in settings.items() if v is not None})
    raise InputError("Only an example can be reopened by a link: uploads are not kept. Choose one and press “Compare”.")


def reopened(
    query: dict[str, str], examples: list[tuple[Path, str]], choices: Choices
) -> tuple[tuple[Path, str] | None, dict[str, Any]]:
    """What a link asks for: the example, or None, and the settings that may be had; anything else in the address is
    passed over."""
    number = query.get("example", "")
    if not re.fullmatch("[1-9][0-9]{0,3}", number) or int(number) > len(examples):
        return None, {}
    named = {k: [v for v in choices.get(k, []) if _means(text, v)] for k, text in query.items()}
    return examples[int(number) - 1], {k: found[0] for k, found in named.items() if found}


def _means(text: str, value: Any) -> bool:
    """Whether a text of an address is a value; browsers write 1.0 as 1."""
    if isinstance(value, (bool, str)):
        return text == str(value)
    try:
        return math.isclose(float(text), value, abs_tol=1e-9)
    except ValueError:
        return False
