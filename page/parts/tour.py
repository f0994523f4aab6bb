"""The guided tour: its text stays in sight, above the lower edge of the window, while it leads from example to example.
What the visitor had comes back when it ends."""

import time
from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from ..language import say
from ..markup import script
from ..tour import Step
from ..visit import LIFETIME, PRIVATE, SILENT
from .asking import Asking
from .part import Section, Values


class Tour:
    """Builds its panel inside the Blocks that is open. steps: at least one; sections: those that they may open."""

    def __init__(self, steps: Sequence[Step], asking: Asking, sections: Sequence[Section]) -> None:
        self.steps, self.asking = steps, asking
        # the step, None while there is no tour; and picture and passage that stood there before it
        self.number, self.kept = (gr.State(None, time_to_live=LIFETIME) for _ in range(2))
        self.place = gr.Textbox("", visible=False)  # where the step looks, an ``elem_id``; "" while there is no tour
        with gr.Column(visible=False, elem_id="tour") as self.panel:
            self.text = gr.Markdown(elem_id="tour-text")
            with gr.Row(elem_id="tour-buttons"):
                self.back = gr.Button("Back", size="sm", min_width=80, elem_id="tour-back")
                self.next = gr.Button("Next", size="sm", min_width=80, variant="primary", elem_id="tour-next")
                self.end = gr.Button("End the tour", size="sm", min_width=80, elem_id="tour-end")
        self.led = {s.name: s.accordion for s in sections if s.name in {step.section for step in steps}}
        shown = [self.number, self.place, self.panel, *self.led.values(), asking.image, asking.passage, asking.mark]
        self.steered = [*shown, self.text, self.back, self.next]
        self.back.click(lambda number: self.show((number or 0) - 1), self.number, self.steered, **SILENT)
        self.next.click(lambda number: self.show((number or 0) + 1), self.number, self.steered, **SILENT)
        self.end.click(self.leave, self.kept, shown, **SILENT)

    def starts(self, button: gr.Button, pages: gr.Tabs | None = None) -> None:
        """Has a button begin the tour; pages: also go to the tab "One pair"."""
        there = {} if pages is None else {pages: gr.update(selected="pair")}
        given = [self.number, self.kept, self.asking.image, self.asking.passage]
        button.click(lambda *given: self.begin(*given) | there, given, [self.kept, *self.steered, *there], **SILENT)

    def speaks(self, switch: gr.HTML) -> None:
        """Has the step said anew when another language is chosen by a click."""
        switch.click(self.tell, self.number, self.text, **SILENT)

    def leads(self, looked: gr.events.Dependency) -> None:
        """After an event that drew an answer and its board: has the place of the step in sight."""
        looked.success(None, self.place, None, js=script("show_place.js"), **PRIVATE)

    def begin(self, number: int | None, kept: tuple[str | None, str] | None, image: str | None, passage: str) -> Values:
        """The first step. What stands there is kept, unless a tour is under way, which put it there."""
        return {self.kept: (image, passage) if number is None else kept} | self.show(0)

    def leave(self, kept: tuple[str | None, str] | None) -> Values:
        """No tour, and what stood there before it, asked anew if it is a question; the last example where nothing did,
        or where it has expired."""
        image, passage = kept or (None, "")
        image = image if image and Path(image).is_file() else None
        back = {self.asking.image: image, self.asking.passage: passage} if image or passage else {}
        asked = {self.asking.mark: f"back {time.time()}"} if image and passage else {}
        closed = {accordion: gr.update(open=False) for accordion in self.led.values()}
        return {self.number: None, self.place: "", self.panel: gr.update(visible=False)} | closed | back | asked

    def tell(self, number: int | None) -> str:
        """The text of a step, counted from 0; none while there is no tour."""
        if number is None:
            return ""
        at = say("Step {number} of {count}", number=number + 1, count=len(self.steps))
        return f"**{at}** {say(self.steps[number].text)}"

    def show(self, number: int) -> Values:
        """A step, counted from 0: its text, its example asked, its section open."""
        last = len(self.steps) - 1
        number = min(max(number, 0), last)
        step = self.steps[number]
        return {
            self.number: number,
            self.place: step.place,
            self.panel: gr.update(visible=True),
            self.text: self.tell(number),
            self.back: gr.update(interactive=number > 0),
            self.next: gr.update(interactive=number < last),
            **self.asking.filled(step.example, f"{number} {time.time()}"),
            **{accordion: gr.update(open=name == step.section) for name, accordion in self.led.items()},
        }
