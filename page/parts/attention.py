"""The section "Attention": where the model looked, in the picture and in the passage."""

from typing import Any

import gradio as gr
import numpy as np

from musti_model import Explanation, MustiPipeline, Sentence
from musti_model.figures import legend_html, overlay, scale_of, words_html
from musti_model.results import Faithfulness

from ..language import later, say
from ..names import branch_name
from .faithful import faithful_html
from .part import Map, Section, Values, opacity

VIEW_NAMES = {"rollout": later("attention rollout"), "gradcam": "Grad-CAM"}


class Attention(Section):
    """Attention of the image and text encoders, and Grad-CAM."""

    name = "attention"
    title = "Attention: where the model looked, which is not why it answered"
    about = (
        "Attention in the picture is of the picture alone, whatever the passage; Grad-CAM, and attention in the "
        "passage, are of picture and passage. None proves why the model answered as it did."
    )

    def build(self) -> None:
        """Makes its components."""
        views, branches = view_choices(self.pipe), [(branch_name(b.name), b.name) for b in self.pipe.config.branches]
        heads = max((self.heads_of(n) for n, b in self.pipe.model.branches.items() if b.is_vit), default=1)
        self.view = gr.Dropdown(views, value=views[0][1] if views else None, label="Map", elem_id="view")
        self.head = gr.Slider(1, max(2, heads), value=1, step=1, label="Head", elem_id="head", visible=False)
        alt = "The picture with the chosen map laid over it; the legend below gives the values"
        self.map = Map("Where it looked in the picture", "attention-map", alt)
        self.faithful_map = gr.HTML(elem_id="faithful-map", elem_classes="faithful")
        with gr.Row():
            self.opacity = opacity(self.name)
            note = "From the smallest to the largest value: small differences look large."
            self.stretch = gr.Checkbox(False, label="Stretch colours", elem_id="stretch", info=note)
        self.word_branch = gr.Radio(
            branches, value=branches[0][1], label="Text read with the picture of branch", elem_id="word-branch"
        )
        self.words = gr.HTML(elem_id="words")
        self.faithful_words = gr.HTML(elem_id="faithful-words", elem_classes="faithful")
        self.controls = [self.view, self.head, self.opacity, self.stretch, self.word_branch]
        self.judged = [self.faithful_map, self.faithful_words]
        self.shown = [self.head, *self.map.shown, self.words, *self.judged]

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """The map of the chosen view, and the passage coloured by attention."""
        stretch = given[self.stretch]
        figure = map_figure(explanation, given[self.view], given[self.head], given[self.opacity], stretch)
        words = attention_html(explanation, given[self.word_branch], stretch)
        return self.map.values(*figure) | {self.words: words, self.head: self.slider(given[self.view])}

    def blank(self) -> Values:
        """Nothing."""
        return (
            self.map.values(None, "")
            | dict.fromkeys([self.faithful_map, self.words, self.faithful_words], "")
            | {self.head: gr.update(visible=False)}
        )

    def judge(self, explanation: Explanation, measured: dict[str, Faithfulness], given: Values) -> Values:
        """Of the map and of the words that are seen; single heads are not measured."""
        answer = explanation.prediction.label
        return {
            self.faithful_map: faithful_html(answer, "regions", measured.get(given[self.view] or "")),
            self.faithful_words: faithful_html(answer, "words", measured.get(f"attention:{given[self.word_branch]}")),
        }

    def slider(self, view: str | None) -> dict[str, Any]:
        """The slider of heads, where the view is of one head."""
        kind, _, branch = (view or "").partition(":")
        heads = self.heads_of(branch) if kind == "heads" else 1
        return gr.update(visible=heads > 1, maximum=max(2, heads))

    def heads_of(self, branch: str) -> int:
        """Attention heads of a ViT branch's last layer."""
        return int(self.pipe.model.tower(branch).backbone.blocks[-1].attn.num_heads)


def attention_html(explanation: Explanation, branch: str, stretch: bool) -> str:
    """The passage coloured by the text encoder's attention, on one scale for all branches unless it is stretched."""
    values = explanation.word_attention[branch]
    alike = values if stretch else [v for words in explanation.word_attention.values() for v in words]
    scale = scale_of(np.asarray(alike), stretch) if values else None
    return words_html(explanation.passage, explanation.word_spans, values, say("attention of the summary token"), scale)


def map_figure(explanation: Explanation, view: str | None, head: int, opacity: float, stretch: bool) -> tuple[Any, str]:
    """The overlay of one view, and its legend; all heads of a branch are drawn on one scale, unless it is stretched.
    ``head`` counts from 1 and matters to the view of one head only."""
    kind, _, branch = (view or "").partition(":")
    if kind == "heads":
        head = min(max(int(head), 1), len(explanation.heads[branch]))
        values, label = (
            explanation.head_map(branch, head - 1),
            say("class-token attention of head {head}, last layer", head=head),
        )
        alike = explanation.heads[branch]
    elif view is not None and view in explanation.maps:
        values, label = explanation.maps[view], say(VIEW_NAMES[kind])
        alike = values
    else:
        told = say(
            "There is no such map: these weights' image encoders have neither attention that can be followed nor "
            "Grad-CAM."
        )
        return None, f"<p>{told}</p>"
    scale = scale_of(values, True) if stretch else scale_of(alike)
    return overlay(explanation.image, values, opacity, scale), legend_html(*scale, label)


def view_choices(pipe: MustiPipeline) -> list[tuple[str, str]]:
    """(label, view) of every map that these weights can have."""
    choices: list[tuple[str, str]] = []
    for name, branch in pipe.model.branches.items():
        if branch.is_vit:
            shown = branch_name(name)
            choices += [
                (Sentence("{branch}: attention rollout", branch=shown), f"rollout:{name}"),
                (Sentence("{branch}: one head, last layer", branch=shown), f"heads:{name}"),
            ]
        elif not branch.is_swin:
            choices.append((f"{branch_name(name)}: Grad-CAM", f"gradcam:{name}"))
    return choices
