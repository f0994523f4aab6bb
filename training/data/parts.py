"""The pairs of a run: those that can be used, divided into parts as its options say."""

from typing import Any

from musti_model.errors import InputError
from musti_model.records import BadRecord, MustiPair

from .copies import recognise
from .folds import leave_language_out, split, split_fingerprint


def usable(pairs: list[MustiPair], bad: list[BadRecord], loud: bool = True) -> list[MustiPair]:
    """Pairs that have a label and a picture on this machine that opens, each with ``picture`` set; says what was left
    out, and which pictures are copies. Raises InputError when no pair is left."""
    found = recognise(
        [p for p in pairs if p.label is not None and "://" not in p.image and "missing" not in p.record], quiet=not loud
    )
    kept = [p for p in found.pairs if p.image not in found.unusable]
    if loud:
        if bad or len(found.pairs) < len(pairs):
            print(
                f"{len(bad)} records are damaged and {len(pairs) - len(found.pairs)} pairs have no label or no "
                "picture; they are left out."
            )
        for sentence in found.notices:
            print(sentence, flush=True)
    if not kept:
        first = f" that opens, such as {found.reasons(1)}" if found.unusable else ""
        raise InputError(f"No pair has a label and a picture on this machine{first}; run training.prepare first.")
    return kept


def divide(pairs: list[MustiPair], options: dict[str, Any]) -> tuple[dict[str, list[MustiPair]], str]:
    """{"train", "dev", "test"} and the split's fingerprint. Raises ValueError when a part is empty."""
    if options["leave_out"]:
        rows = leave_language_out(pairs, options["leave_out"], options["split_seed"])
    else:
        rows = split(pairs, options["folds"], options["fold"], options["split_seed"], cut=not options["whole"])
    parts = {part: [pairs[i] for i in rows[part]] for part in ("train", "dev", "test")}
    empty = [part for part, chosen in parts.items() if not chosen]
    if empty:
        raise ValueError(
            f"The split leaves no pairs for {' and '.join(empty)}; choose fewer folds or another language."
        )
    place = {i: number for number, part in enumerate(("train", "dev", "test")) for i in rows[part]}
    return parts, split_fingerprint(pairs, [place.get(i, -1) for i in range(len(pairs))])
