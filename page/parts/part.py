"""What the parts have in common: where a visit keeps its last question, and how a view of an explanation is drawn,
emptied and judged.

Handlers take and give {component: value}, so that nobody counts places.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import gradio as gr

from musti_model import Explanation
from musti_model.results import Faithfulness

from ..calls import Calls
from ..language import later
from ..markup import paragraph
from ..visit import SILENT

Values = dict[Any, Any]  # {component: value}
Control = gr.Radio | gr.Dropdown | gr.Slider | gr.Checkbox
# also after an answer has expired
NOTHING = later("There is nothing to show yet; if nothing follows, press “Compare”.")


class Question(NamedTuple):
    """What was asked last, and what it got. image: a picture's file; asked: when, in ms since the visitor opened the
    page; failed: it got a sentence instead of an answer; verdict: HTML."""

    image: str
    passage: str
    asked: float
    failed: bool
    verdict: str


class Latest:
    """When the last question of a visit was asked, as ``Question.asked``, and when the last message was sent that
    settled whose verdict stands. Changed in place, so that a call which has been at work for an older one sees it."""

    def __init__(self) -> None:
        self.asked = self.settled = 0.0


class Measured(NamedTuple):
    """How faithful an explanation is, by name. asked: whose (``Explanation.asked``): a measurement that took long may
    arrive beside the next explanation."""

    asked: str
    by_name: dict[str, Faithfulness]


def measured_of(explanation: Explanation | None, measured: Measured | None) -> dict[str, Faithfulness] | None:
    """What was measured of this very explanation; None where nothing was."""
    return (
        measured.by_name
        if explanation is not None and measured is not None and measured.asked == explanation.asked
        else None
    )


class Held(NamedTuple):
    """Components that keep the last question (``Question``), its explanation, and how faithful that is (``Measured``);
    and the line that says what is going on."""

    question: gr.State
    explanation: gr.State
    measured: gr.State
    told: gr.HTML


class Part(ABC):
    """A view of an explanation.

    controls: what a visitor chooses in it, and a link keeps; shown: what it fills; judged: those of it that say how
    faithful that is; given: {component: value} of the controls and of ``Held``.
    """

    def __init__(self, held: Held) -> None:
        self.held = held
        self.controls: list[Control] = []
        self.shown: list[gr.components.Component] = []
        self.judged: list[gr.HTML] = []

    @abstractmethod
    def draw(self, explanation: Explanation, given: Values) -> Values:
        """What it shows of an explanation."""

    @abstractmethod
    def blank(self) -> Values:
        """What it shows of none."""

    def judge(self, explanation: Explanation, measured: dict[str, Faithfulness], given: Values) -> Values:
        """What it says of how faithful that is."""
        return {}

    def redraw(self, given: Values) -> Values:
        """All of it, as the controls stand. No model runs."""
        explanation = given[self.held.explanation]
        measured = measured_of(explanation, given[self.held.measured])
        if explanation is None:
            return self.blank() | {self.held.told: paragraph(NOTHING)}
        return self.draw(explanation, given) | (self.judge(explanation, measured, given) if measured else {})

    def listen(self) -> None:
        """Has the controls redraw it."""
        given = {self.held.explanation, self.held.measured, *self.controls}
        gr.on([c.change for c in self.controls], self.redraw, given, [*self.shown, self.held.told], **SILENT)


class Section(Part):
    """A part that is closed until it is opened. name: in the page's addresses; title: what it is; about: what it
    depends on. Texts in English."""

    name: str
    title: str
    about: str

    def __init__(self, held: Held, calls: Calls) -> None:
        super().__init__(held)
        self.calls, self.pipe = calls, calls.pipe
        with gr.Accordion(
            self.title, open=False, elem_id=f"section-{self.name}", elem_classes="section"
        ) as self.accordion:
            gr.Markdown(self.about)
            self.build()
        if self.controls:
            self.listen()

    @abstractmethod
    def build(self) -> None:
        """Makes its components."""


class Map:
    """A picture with a map laid over it, which can be enlarged and downloaded, and its legend; no empty frame where
    there is no map."""

    def __init__(self, label: str, elem_id: str, alt_text: str) -> None:
        self.image = gr.Image(
            label=label,
            interactive=False,
            buttons=["download", "fullscreen"],
            elem_id=elem_id,
            alt_text=alt_text,
            visible=False,
        )
        self.legend = gr.HTML()
        self.shown = [self.image, self.legend]

    def values(self, figure: Any, legend: str) -> Values:
        """A figure, or None, and what stands below."""
        return {self.image: gr.update(value=figure, visible=figure is not None), self.legend: legend}


def opacity(name: str, visible: bool = True) -> gr.Slider:
    """How far a section's map covers the picture. name: the section's."""
    return gr.Slider(
        0, 1, value=0.55, step=0.05, label="Opacity of the map", elem_id=f"opacity-{name}", visible=visible
    )
