"""The section "What if": words that can be struck out and a picture whose cells can be blanked out, by mouse, touch or
keyboard; and the new answer."""

from typing import Any

import gradio as gr

from musti_model import Alteration, Explanation, Prediction
from musti_model.fusion import Opened
from musti_model.methods.perturb import CELLS

from ..language import later, say
from ..markup import alert, data_url, literal, paragraph, render, script, template
from ..names import branch_name
from ..visit import FAST, SILENT
from .part import NOTHING, Question, Section, Values

HOW = later(
    "Click words to strike them out; click or draw over the picture to blank it out. The new answer appears here."
)
EMPTY: dict[str, Any] = {"words": [], "cells": [], "picture": "", "shape": "1 / 1", "columns": CELLS, "told": {}}


class WhatIf(Section):
    """The board, the switches beside it, and the altered answer. tried: the event of an alteration, after which
    somebody has to see to it that it still belongs to what is asked."""

    name = "what-if"
    title = "What if: strike words, blank out regions, shut the gate"
    about = (
        "This depends on picture and passage together: it shows what the model answers when something is taken "
        "away. Try whether the answer hangs on what is said to matter."
    )

    def build(self) -> None:
        """Makes its components."""
        branches = [(branch_name(b.name), b.name) for b in self.pipe.config.branches]
        self.names, fusion = [name for _, name in branches], self.pipe.model.fusion
        self.altered = gr.HTML(elem_id="altered")
        with gr.Row():
            self.gate_state = gr.Radio(
                gate_states(fusion.by_word), value="learned", label="Gate", elem_id="gate-state", visible=fusion.gated
            )
            self.voting = gr.CheckboxGroup(branches, value=self.names, label="Branches that vote", elem_id="voting")
        self.board = gr.HTML(EMPTY, html_template=template("board.hbs"), js_on_load=script("board.js"), elem_id="board")
        self.undo = gr.Button("Put everything back", size="sm", elem_id="undo")
        gr.Markdown(
            "Words are taken out of the passage, cells get the picture's mean colour. A branch that does not vote "
            "gives its weight to those that do. With the gate shut the passage is read without the picture."
        )
        switches: list[gr.HTML | gr.Radio | gr.CheckboxGroup] = [self.board, self.gate_state, self.voting]
        self.shown = [*switches, self.altered]
        given = {self.held.question, self.held.explanation, *switches}
        self.tried = gr.on(
            [s.input for s in switches],
            self.alter,
            given,
            self.altered,
            show_progress="minimal",
            **FAST,
        )
        self.tried.failure(lambda: "", None, self.altered, **SILENT)
        # queued after an alteration still at work
        self.undo.click(self.put_back, self.held.explanation, self.shown, show_progress_on=self.altered, **FAST)

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """Everything in its place."""
        return self.put_back(explanation)

    def blank(self) -> Values:
        """An empty board."""
        return self.put_back(None)

    def put_back(self, explanation: Explanation | None) -> Values:
        """The board, the gate's switch, the voting branches and the altered answer, as if nothing had been altered."""
        told = (
            ""
            if explanation is None
            else what_if_html(explanation.prediction, explanation.prediction.probability, Alteration())
        )
        return {
            self.board: board_value(explanation),
            self.gate_state: "learned",
            self.voting: self.names,
            self.altered: told,
        }

    def alter(self, given: Values) -> str:
        """The altered answer beside the old one."""
        question: Question | None = given[self.held.question]
        explanation: Explanation | None = given[self.held.explanation]
        if question is None or explanation is None:
            return paragraph(NOTHING)
        gate: Opened = given[self.gate_state]
        alteration = alteration_of(given[self.board], gate, given[self.voting], self.names)
        old = explanation.prediction
        try:
            new = (
                self.calls.alter(question.image, question.passage, alteration)
                if alteration.changes
                else old.probability
            )
        except gr.Error as error:
            return alert(error)
        return what_if_html(old, new, alteration)


def gate_states(by_word: bool) -> list[tuple[str, str]]:
    """(label, state) of the gate that can be tried out."""
    states = [(later("As learned"), "learned"), (later("Shut"), "shut")]
    return [*states, (later("Open at every word alike"), "open")] if by_word else states


def board_value(explanation: Explanation | None) -> dict[str, Any]:
    """A fresh board for an explanation: nothing struck out, nothing blanked out."""
    if explanation is None:
        return EMPTY
    words = [{"text": literal(w), "off": False} for w in explanation.words]
    cells = [{"text": place_name(r, c), "off": False, "here": r == c == 0} for r in range(CELLS) for c in range(CELLS)]
    told = {
        "words": literal(say("Words to strike out")),
        "cells": literal(say("Regions to blank out; the arrow keys move")),
    }
    image = explanation.image
    return {
        "words": words,
        "cells": cells,
        "picture": data_url(image),
        "shape": f"{image.width} / {image.height}",
        "columns": CELLS,
        "told": told,
    }


def place_name(row: int, column: int) -> str:
    """A place of a grid, counted from 0, as screen readers say it."""
    return say("row {row}, column {column}", row=row + 1, column=column + 1)


def alteration_of(value: dict[str, Any], gate: Opened, voting: list[str], branches: list[str]) -> Alteration:
    """What the board and the switches beside it ask for. The board comes from a browser: what is not on it is left
    out."""
    off = {
        name: [i for i, item in enumerate(value.get(name, [])) if isinstance(item, dict) and item.get("off")]
        for name in ("words", "cells")
    }
    cells = [divmod(i, CELLS) for i in off["cells"] if i < CELLS * CELLS]
    return Alteration(off["words"], cells, gate, [b for b in branches if b not in voting])


def what_if_html(prediction: Prediction, probability: float, alteration: Alteration) -> str:
    """The new probability beside the old one."""
    if not alteration.changes:
        return paragraph(HOW)
    answer = say("cannot tell") if prediction.unsure else say(prediction.label)
    altered = say("YES") if probability >= prediction.threshold else say("NO")
    rows = [(say("as it is"), prediction.probability, answer), (say("altered"), probability, altered)]
    turned = (prediction.probability >= prediction.threshold) != (probability >= prediction.threshold)
    return render("what_if.html", rows=rows, threshold=prediction.threshold, turned=turned)
