"""The guided tour: its text stays in sight, above the lower edge of the window, while it leads from example to example
and from section to section."""

import time
from collections.abc import Sequence

import gradio as gr

from ..language import say
from ..markup import script
from ..tour import Step
from ..visit import LIFETIME, PRIVATE, SILENT
from .asking import Asking
from .part import Section, Values


class Tour:
    """Builds its panel inside the Blocks that is open. steps: at least one; sections: those that they open."""

    def __init__(self, steps: Sequence[Step], asking: Asking, sections: Sequence[Section]) -> None:
        self.steps, self.asking, self.sections = steps, asking, sections
        self.number = gr.State(0, time_to_live=LIFETIME)
        self.section = gr.Textbox(visible=False)  # the one that the tour leads to; "" while there is no tour
        with gr.Column(visible=False, elem_id="tour") as self.panel:
            self.text = gr.Markdown(elem_id="tour-text")
            with gr.Row(elem_id="tour-buttons"):
                self.back = gr.Button("Back", size="sm", min_width=80, elem_id="tour-back")
                self.next = gr.Button("Next", size="sm", min_width=80, variant="primary", elem_id="tour-next")
                self.end = gr.Button("End the tour", size="sm", min_width=80, elem_id="tour-end")
        self.steered = [
            self.number,
            self.section,
            self.panel,
            self.text,
            self.back,
            self.next,
            asking.image,
            asking.passage,
            asking.mark,
        ]
        self.steered += [s.accordion for s in sections]
        self.back.click(lambda number: self.show((number or 0) - 1), self.number, self.steered, **SILENT)
        self.next.click(lambda number: self.show((number or 0) + 1), self.number, self.steered, **SILENT)
        self.end.click(
            lambda: {self.section: "", self.panel: gr.update(visible=False)}, None, [self.section, self.panel], **SILENT
        )

    def starts(self, button: gr.Button, pages: gr.Tabs | None = None) -> None:
        """Has a button begin the tour; pages: also go to the tab "One pair"."""
        there = {} if pages is None else {pages: gr.update(selected="pair")}
        button.click(lambda: self.show(0) | there, None, [*self.steered, *there], **SILENT)

    def leads(self, drawn: gr.events.Dependency) -> None:
        """After an event that drew an answer: has the section of the step in sight."""
        drawn.success(None, self.section, None, js=script("show_section.js"), **PRIVATE)

    def show(self, number: int) -> Values:
        """A step, counted from 0: its text, its example asked, its section open and the others closed."""
        last = len(self.steps) - 1
        number = min(max(number, 0), last)
        step = self.steps[number]
        told = f"**{say('Step {number} of {count}', number=number + 1, count=last + 1)}** {say(step.text)}"
        return {
            self.number: number,
            self.section: step.section,
            self.panel: gr.update(visible=True),
            self.text: told,
            self.back: gr.update(interactive=number > 0),
            self.next: gr.update(interactive=number < last),
            **self.asking.filled(step.example, f"{number} {time.time()}"),
            **{s.accordion: gr.update(open=s.name == step.section) for s in self.sections},
        }
