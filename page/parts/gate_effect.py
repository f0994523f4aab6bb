"""The section "Gate effect": what the gate changed in the answer."""

from html import escape
from typing import Any

import gradio as gr
import torch

from musti_model import Explanation
from musti_model.figures import legend_html, overlay, words_html
from musti_model.frames import to_frame
from musti_model.results import Faithfulness

from ..language import say
from ..names import branch_name
from ..scales import scale_for
from .faithful import faithful_html
from .part import Map, Section, Values, opacity


class GateEffect(Section):
    """What opening the gate changed, in words and patches."""

    name = "gate"
    title = "Gate effect: what the picture changed in the answer by way of the passage"
    about = (
        "This depends on picture and passage together: it compares the vote of a branch with the gate as learned "
        "and with the gate shut, word by word and patch by patch."
    )

    def build(self) -> None:
        """Makes its components."""
        branches, gated = (
            [(branch_name(b.name), b.name) for b in self.pipe.config.branches],
            self.pipe.model.fusion.gated,
        )
        self.branch = gr.Radio(branches, value=branches[0][1], label="Image branch", elem_id="branch", visible=gated)
        self.effect = gr.HTML(elem_id="gate")
        alt = (
            "The picture with what each patch changed in the answer through the gate; the legend below gives the values"
        )
        self.map = Map("Patches through the gate", "gate-map", alt)
        self.faithful = gr.HTML(elem_id="faithful-gate", elem_classes="faithful")
        self.opacity = opacity(self.name, gated)
        self.controls = [self.branch, self.opacity]
        self.judged = [self.faithful]
        self.shown = [self.effect, *self.map.shown, *self.judged]

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """The coloured passage, the map, its legend."""
        branch = given[self.branch]
        return {self.effect: effect_html(explanation, branch)} | self.map.values(
            *effect_figure(explanation, branch, given[self.opacity])
        )

    def blank(self) -> Values:
        """Nothing."""
        return {self.effect: "", self.faithful: ""} | self.map.values(None, "")

    def judge(self, explanation: Explanation, measured: dict[str, Faithfulness], given: Values) -> Values:
        """Of the map that is seen."""
        return {
            self.faithful: faithful_html(
                explanation.prediction.label, "regions", measured.get(f"effect:{given[self.branch]}")
            )
        }


def effect_html(explanation: Explanation, branch: str) -> str:
    """What the gate changed, word by word."""
    effect = explanation.gate_effect.get(branch)
    if effect is None:
        return f"<p>{say('These weights have no gate: the picture does not touch the text before the cosine.')}</p>"
    told = say(
        (
            "Opening the gate changes the vote of the {branch} branch by <strong>{total:+.3f}</strong>. The colours "
            "show each word's part in that change; positions without a word add {rest:+.3f}, and the sum of all parts "
            "is off by {error:.2%}."
        ),
        branch=escape(branch_name(branch)),
        total=effect.total,
        rest=round(effect.rest, 3) + 0.0,  # never -0.000
        error=effect.error,
    )
    label, scale = say("change of the logit by the gate"), scale_for("words", "logit", explanation)
    return f"<p>{told}</p>" + words_html(
        explanation.passage, explanation.word_spans, effect.words, label, scale, signed=True
    )


def effect_figure(explanation: Explanation, branch: str, opacity: float) -> tuple[Any, str]:
    """The picture with what each patch changed through the gate, and its legend."""
    effect = explanation.gate_effect.get(branch)
    if effect is None or effect.patches is None:
        return None, ""
    values = to_frame(torch.from_numpy(effect.patches), *explanation.image.size)
    scale = scale_for("regions", "logit", explanation)
    return overlay(explanation.image, values, opacity, scale, signed=True), legend_html(
        *scale, say("change of the logit by each patch through the gate"), signed=True
    )
