"""Values that a stranger may have written: each is of one type and in one range, or a ValueError says what it should
be."""

import re
import reprlib
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import Any

Check = Callable[[Any], str | None]  # a value -> what it should be, or None where it is that


def number(low: float, high: float) -> Check:
    """A finite number from low to high."""
    said = f"a number from {low:g} to {high:g}"
    return lambda value: (
        None if isinstance(value, Real) and not isinstance(value, bool) and _between(low, value, high) else said
    )


def whole(low: int, high: int) -> Check:
    """A whole number from low to high."""
    said = f"a whole number from {low} to {high}"
    return lambda value: (
        None if isinstance(value, Integral) and not isinstance(value, bool) and _between(low, value, high) else said
    )


def _between(low: float, value: Any, high: float) -> bool:
    return bool(low <= value <= high)


def flag(value: Any) -> str | None:
    """True or False."""
    return None if isinstance(value, bool) else "true or false"


def one_of(*words: str) -> Check:
    """One of some words."""
    return lambda value: None if isinstance(value, str) and value in words else f"one of {', '.join(words)}"


def text(longest: int, pattern: str = ".*", said: str = "text") -> Check:
    """A text of at most ``longest`` characters, all of a pattern, which ``said`` describes."""
    fits = re.compile(pattern, re.DOTALL)
    return lambda value: (
        None
        if isinstance(value, str) and len(value) <= longest and fits.fullmatch(value)
        else f"{said} of at most {longest} characters"
    )


def maybe(check: Check) -> Check:
    """As ``check``, or None."""
    return lambda value: None if value is None else check(value)


def several(check: Check, least: int, most: int) -> Check:
    """A list of ``least`` to ``most`` values that each pass the check."""

    def fits(value: Any) -> str | None:
        if not isinstance(value, (list, tuple)) or not least <= len(value) <= most:
            return f"a list of {least if least == most else f'{least} to {most}'}"
        return next((f"a list, each {said}" for v in value if (said := check(v))), None)

    return fits


def one_or_several(check: Check, most: int = 16) -> Check:
    """One value that passes the check, or a list of them."""
    listed = several(check, 1, most)
    return lambda value: listed(value) if isinstance(value, (list, tuple)) else check(value)


def check_values(where: str, values: Mapping[str, Any], checks: Mapping[str, Check]) -> None:
    """Raises ValueError for a key without a check, and for a value that does not pass its own. where: whose values they
    are."""
    unknown = sorted(str(key) for key in set(values) - set(checks))
    if unknown:
        listed = ", ".join(key[:40] for key in unknown[:5])
        raise ValueError(f"{where} does not know {listed}; check the spelling in config.json.")
    for key, value in values.items():
        said = checks[key](value)
        if said:
            raise ValueError(f"{key} of {where} is {said}, not {reprlib.repr(value)[:60]}.")
