"""The steps of the guided tour: what each says, which example it asks, which section it opens."""

from typing import NamedTuple

from .language import later


class Step(NamedTuple):
    """A step of the tour. text: English, Markdown; example: its number on the page, from 0; section: the name of the section that is opened."""

    text: str
    example: int
    section: str


TOUR = (
    Step(
        later(
            "A Chinese palace, and a verse of Luther's Bible: the house was filled with the odour of the ointment. The answer is YES, and it hangs on one word: *Haus*."
        ),
        1, "why",
    ),
    Step(
        later("Strike *Haus* out: nothing else in this verse points to the picture, and the answer turns. Put it back, and draw over the palace: it turns as well."),
        1, "what-if",
    ),
    Step(later("Sheep, and *a rose by any other name*: a NO. The headline says what was seen (wrongly, here) and what was read."), 2, "why"),
    Step(
        later("The palace once more. Shut the gate on the board: with these weights hardly anything changes, since hardly anything of the picture was let in."),
        1, "vote",
    ),
    Step(later("*Vanity of vanities* names nothing that these weights know, so they say that they cannot tell."), 4, "why"),
)  # fmt: skip
