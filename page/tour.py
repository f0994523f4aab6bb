"""The steps of the guided tour: what each says, which example it asks, where it looks."""

from typing import NamedTuple

from .language import later


class Step(NamedTuple):
    """A step of the tour. text: English, Markdown; example: its number on the page, from 0; place: the ``elem_id`` of
    what is scrolled to the upper edge of the window; section: the name of the section that is opened, if any."""

    text: str
    example: int
    place: str = "verdict"
    section: str = ""


TOUR = (
    Step(
        later(
            "Flowers, and *a rose by any other name*: YES. On the board the gate opened at *rose* and nearly "
            "nowhere else; point at the word, and the picture shows where it looked. (When the tour ends, your own "
            "picture and passage are back.)"
        ),
        0,
    ),
    Step(
        later(
            "The same words beside another picture: on the board the gate stays nearly shut at *rose*, and the "
            "answer is NO. The headline says what was seen and what was read."
        ),
        2,
    ),
    Step(
        later(
            "A Chinese palace, and a verse of Luther's Bible: the house was filled with the odour of the ointment. "
            "Shut the gate on the board: read without the picture, the verse says nothing any more, and the answer "
            "turns."
        ),
        1,
    ),
    Step(
        later(
            "Strike *Haus* out: nothing else in this verse points to the picture, and the answer turns. Put it "
            "back, and draw over the palace: it turns as well."
        ),
        1,
        "altered",
        "what-if",
    ),
    Step(
        later(
            "*Vanity of vanities* names nothing that these weights know, so the headline says that they cannot tell."
        ),
        6,
    ),
)
