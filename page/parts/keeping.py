"""What a visitor takes along: a link to what is seen, and a zip of maps and numbers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from ..language import refusal, refusing
from ..link import query_of, reopened
from ..markup import script
from ..take_away import keeper, zipped
from ..visit import PRIVATE
from .part import NOTHING, Control, Held, Section, Values, measured_of


class Keeping:
    """Builds its components inside the Blocks that is open. sections: a link keeps their controls, by ``elem_id``, and
    which of them are open; packed: the event of a zip, after which somebody has to see to it that it still belongs to
    what is asked."""

    def __init__(self, held: Held, examples: list[tuple[Path, str]], sections: Sequence[Section]) -> None:
        self.held, self.examples, self.sections = held, examples, sections
        self.controls = {str(c.elem_id): c for s in sections for c in s.controls}
        # opened: names of sections, each after a space
        self.query, self.opened = gr.Textbox(visible=False), gr.Textbox("", visible=False)
        with gr.Row():
            self.make_link = gr.Button(
                "Link to this view (examples only: uploads are not kept)", size="sm", elem_id="make-link"
            )
            self.pack = gr.Button("Take away (zip of maps and numbers)", size="sm", elem_id="pack")
            self.bundle = gr.File(label="Zip", interactive=False, visible="hidden", elem_id="bundle", height=80)
        self.link = gr.Textbox(label="Link", interactive=False, buttons=["copy"], visible="hidden", elem_id="link")
        self.shown = [self.bundle]
        for section in sections:
            self._watch(section)
        given: set[gr.blocks.Block] = {held.question, self.opened, *self.controls.values()}
        made = self.make_link.click(self.link_to, given, [self.query, self.link], show_progress_on=self.link, **PRIVATE)
        made.success(None, self.query, self.link, js=script("full_address.js"), **PRIVATE)

    def packs(self, measured: gr.events.Dependency) -> None:
        """Has the zip made after an event that sees to it that everything in it is measured."""
        self.packed = measured.then(self.pack_up, {self.held.explanation, self.held.measured}, self.bundle, **PRIVATE)

    def _watch(self, section: Section) -> None:
        """Notes in the browser when a section is opened or closed."""
        without = f'opened.replace(/ {section.name}(?= |$)/, "")'
        section.accordion.expand(
            None, self.opened, self.opened, js=f'(opened) => {without} + " {section.name}"', **PRIVATE
        )
        section.accordion.collapse(None, self.opened, self.opened, js=f"(opened) => {without}", **PRIVATE)

    def blank(self) -> Values:
        """No zip."""
        return {self.bundle: None}

    def pack_up(self, given: Values) -> dict[str, Any]:
        """The zip."""
        explanation = given[self.held.explanation]
        measured = measured_of(explanation, given[self.held.measured])
        if explanation is None:
            raise refusal("There is nothing to take away yet; press “Compare” first.")
        path = refusing(lambda: zipped(explanation, measured, keeper(self.bundle)))
        return gr.update(value=path, visible=True)

    def link_to(self, given: Values) -> Values:
        """The query of a link, and the field that will show the whole. It needs what was asked and no explanation."""
        question, opened = given[self.held.question], given[self.opened].split()
        if question is None:  # expired
            raise refusal(NOTHING)
        settings = {name: given[control] for name, control in self.controls.items()} | {
            f"open-{s.name}": True for s in self.sections if s.name in opened
        }
        return {
            self.query: refusing(lambda: query_of(question[:2], self.examples, settings)),
            self.link: gr.update(visible=True),
        }

    def reopened(self, query: dict[str, str]) -> tuple[int | None, Values]:
        """What an address asks for: the number of an example, or None, and how controls and sections then stand."""
        choices = {name: choices_of(control) for name, control in self.controls.items()} | {
            f"open-{s.name}": [True] for s in self.sections
        }
        example, named = reopened(query, self.examples, choices)
        if example is None:
            return None, {}
        controls = {control: named[name] for name, control in self.controls.items() if name in named}
        opened = [s for s in self.sections if f"open-{s.name}" in named]
        return self.examples.index(example), controls | {self.opened: "".join(f" {s.name}" for s in opened)} | {
            s.accordion: gr.update(open=True) for s in opened
        }


def choices_of(control: Control) -> list[Any]:
    """The values that a control may have."""
    if isinstance(control, gr.Slider):
        return [
            round(control.minimum + n * control.step, 6)
            for n in range(round((control.maximum - control.minimum) / control.step) + 1)
        ]
    return [False, True] if isinstance(control, gr.Checkbox) else [value for _, value in control.choices]
