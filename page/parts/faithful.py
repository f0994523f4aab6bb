"""How faithful an explanation is: one word, and the numbers behind it one step further."""

from dataclasses import asdict

from musti_model.results import Faithfulness

from ..language import later, say

STAYS = 0.93  # mean probability of the answer while parts are taken away at random, from which no order could do much
NUMBERS = {
    "words": later(
        "With the strongest words struck out first, the mean probability of {answer} on the way is {deletion:.2f}; "
        "in random order it is {random_deletion:.2f}. Put back first, {insertion:.2f} against "
        "{random_insertion:.2f}."
    ),
    "regions": later(
        "With the strongest regions blanked out first, the mean probability of {answer} on the way is "
        "{deletion:.2f}; in random order it is {random_deletion:.2f}. Put back first, {insertion:.2f} against "
        "{random_insertion:.2f}."
    ),
}
CANNOT = later("The answer hardly changes in whatever order they are taken away.")


def judgement(f: Faithfulness) -> str:
    """An explanation's faithfulness in a word or few, in English."""
    better = f.random_deletion - f.deletion
    if better == 0 or (f.random_deletion > STAYS and better <= 0.05):
        return later("cannot be told")
    return later("holds") if better > 0.05 else later("weak") if better > 0 else later("no better than chance")


def faithful_html(answer: str, kind: str, f: Faithfulness | None) -> str:
    """What stands below an explanation. answer: "YES" or "NO"; kind: "words" or "regions"; "" where it was not
    measured."""
    if f is None:
        return ""
    word = judgement(f)
    numbers = say(NUMBERS[kind], answer=say(answer), **asdict(f)) + (
        f" {say(CANNOT)}" if word == "cannot be told" else ""
    )
    told = say("How faithful this is, tried on this pair: <strong>{word}</strong>", word=say(word))
    return f"<details><summary>{told}</summary><p>{numbers}</p></details>"
