"""The section "Why": what speaks for and against the answer YES, word by word and region by region."""

from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from musti_model import Explanation, Prediction
from musti_model.figures import legend_html, overlay, words_html
from musti_model.methods import BEST, method
from musti_model.results import Evidence, Faithfulness

from ..calls import Calls
from ..language import Told, later, number, say
from ..names import branch_name, object_name
from ..scales import scale_for
from .faithful import faithful_html
from .part import Held, Map, Section, Values, opacity

WHOLE = "whole model"
THOROUGH = later(
    "Each word is struck out and read alone. Parts of the picture are hidden at random, and parts are looked at "
    "alone and enlarged. The numbers are what that does to the logit. They tell what this model's answer hangs on, "
    "not whether the model is right."
)
SPARED = later(
    "Each word is struck out (in a long passage those that hardly count a few at a time) and read alone. Parts of "
    "the picture are hidden at random, and parts are looked at alone and enlarged. The numbers are what that does "
    "to the logit. They tell what this model's answer hangs on, not whether the model is right."
)
QUICK = later(
    "These weights are too large for the best methods on this machine: words and regions come from attention "
    "weighted by gradients, which is less faithful, and their numbers are shares of the vote."
)


class Why(Section):
    """Evidence for and against."""

    name = "why"
    title = "Why: which words and regions speak for YES, and which against it"
    about = (
        "This depends on picture and passage together: it tells by how much the answer changes when a word or a "
        "region is taken away. Orange speaks for YES, purple against it."
    )

    def __init__(self, held: Held, calls: Calls, scores: dict[str, Any] | None) -> None:
        self.scores = scores
        super().__init__(held, calls)

    def build(self) -> None:
        """Makes its components."""
        branches = [(branch_name(b.name), b.name) for b in self.pipe.config.branches]
        self.part = gr.Radio([("Whole model", WHOLE), *branches], value=WHOLE, label="Evidence of", elem_id="part")
        self.evidence = gr.HTML(elem_id="evidence")
        self.faithful_words = gr.HTML(elem_id="faithful-evidence", elem_classes="faithful")
        alt = (
            "The picture with regions that speak for YES in orange and against it in purple; the legend below "
            "gives the values"
        )
        self.map = Map("Regions for and against", "evidence-map", alt)
        self.faithful_map = gr.HTML(elem_id="faithful-evidence-map", elem_classes="faithful")
        self.opacity = opacity(self.name)
        gr.Markdown(QUICK if not self.pipe.many_passes else SPARED if self.pipe.spared else THOROUGH)
        if self.pipe.many_passes:
            Told(lambda: score_html(self.scores, f"{self.pipe.name} ({self.pipe.revision})"), elem_id="score")
        self.controls = [self.part, self.opacity]
        self.judged = [self.faithful_words, self.faithful_map]
        self.shown = [self.evidence, *self.map.shown, *self.judged]

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """The coloured passage, the map, its legend."""
        part = given[self.part]
        return {self.evidence: evidence_html(explanation, part)} | self.map.values(
            *evidence_figure(explanation, part, given[self.opacity])
        )

    def blank(self) -> Values:
        """Nothing."""
        return dict.fromkeys([self.evidence, self.faithful_words, self.faithful_map], "") | self.map.values(None, "")

    def judge(self, explanation: Explanation, measured: dict[str, Faithfulness], given: Values) -> Values:
        """Of the very words and the very map that are seen."""
        answer, of = explanation.prediction.label, "" if given[self.part] == WHOLE else f":{given[self.part]}"
        return {
            self.faithful_words: faithful_html(answer, "words", measured.get(f"words{of}")),
            self.faithful_map: faithful_html(answer, "regions", measured.get(f"regions{of}")),
        }


def asked_for(explanation: Explanation) -> Evidence:
    """Its evidence. Raises ValueError where that was not asked for."""
    if explanation.evidence is None:
        raise ValueError("This explanation was made without evidence.")
    return explanation.evidence


def part_of(explanation: Explanation, branch: str) -> Evidence:
    """Evidence of a branch, or of the WHOLE model."""
    whole = asked_for(explanation)
    return whole if branch == WHOLE else whole.branches[branch]


def evidence_html(explanation: Explanation, branch: str, beside: Sequence[Explanation] = ()) -> str:
    """The passage coloured by what speaks for and against YES, the words that weigh most, and what a NO lacks. beside:
    explanations that stand beside it, to be drawn on one scale with it."""
    evidence = part_of(explanation, branch)
    label, scale = (
        unit_of(evidence),
        scale_for("words", method("words", evidence.methods["words"]).unit, explanation, *beside),
    )
    words = words_html(explanation.passage, explanation.word_spans, evidence.words, label, scale, signed=True)
    return (
        strongest(explanation.words, evidence.words)
        + words
        + missing_html(explanation.prediction, asked_for(explanation))
    )


def unit_of(evidence: Evidence) -> str:
    """What the numbers of evidence are."""
    if method("words", evidence.methods["words"]).unit == "share of the vote":
        return say("share of the vote for (+) or against (−) YES")
    return say("logit for (+) or against (−) YES")


def strongest(words: list[str], values: list[float], many: int = 3, least: float = 0.05) -> str:
    """The words that weigh most on either side, in a sentence; signs, and those under ``least`` (logit), are left
    out."""
    order = sorted((i for i, w in enumerate(words) if any(c.isalnum() for c in w)), key=lambda i: -values[i])
    sides = []
    for sign, title, rows in ((1, say("For YES:"), order), (-1, say("Against:"), order[::-1])):
        strongest_of: dict[str, int] = {}  # of a word that stands twice, where it weighs more
        for i in rows:
            strongest_of.setdefault(words[i].lower(), i)
        rows = list(strongest_of.values())
        named = [f"{escape(words[i])} ({number(values[i], '+.2f')})" for i in rows[:many] if sign * values[i] >= least]
        sides.append(f"<strong>{title}</strong> {', '.join(named) or say('no word weighs much')}.")
    return f"<p>{' '.join(sides)}</p>"


def missing_html(prediction: Prediction, evidence: Evidence) -> str:
    """Why NO: what the passage would have had to name, by trying it."""
    if prediction.label == "YES" or prediction.unsure or not evidence.missing:
        return ""
    # the very words that were put there
    tried = ", ".join(f"{escape(o.replace('_', ' '))} {number(p, '.3f')}" for o, p in evidence.missing)
    read = sorted({n for n, _ in prediction.objects_in_passage})
    seen = escape(object_name(prediction.objects_in_picture[0][0]))
    takes = say(
        "The model takes the picture for {seen}, while the passage speaks of {read}.",
        seen=seen,
        read=escape(", ".join(map(object_name, read))),
    )
    if prediction.objects_in_picture[0][0] in read:
        takes = say(
            (
                "The model names {seen} on both sides, yet what it makes of the whole passage and the whole picture is "
                "too far apart."
            ),
            seen=seen,
        )
    needed = say(
        (
            "Put before the passage, these English words would give the probability of YES: {tried} (threshold "
            "{threshold:.3f})."
        ),
        tried=tried,
        threshold=prediction.threshold,
    )
    return f'<p class="missing"><strong>{say("Why NO?")}</strong> {takes} {needed}</p>'


def evidence_figure(
    explanation: Explanation, branch: str, opacity: float, beside: Sequence[Explanation] = ()
) -> tuple[Any, str]:
    """The picture with regions for and against, and its legend; ``beside`` as for ``evidence_html``."""
    evidence = part_of(explanation, branch)
    values = evidence.map
    if values is None:
        return (
            None,
            f"<p>{say('The image tokens of these weights have no place in the picture, so there is no map.')}</p>",
        )
    unit = method("regions", evidence.methods["regions"]).unit
    scale, label = scale_for("regions", unit, explanation, *beside, effects=False), unit_of(evidence)
    if unit == "logit":
        label = say("logit for (+) or against (−) YES, per cell of an 8 × 8 grid")
    legend = legend_html(*scale, label, signed=True)
    return overlay(explanation.image, values, opacity, scale, signed=True), legend


def score_html(measured: dict[str, Any] | None, weights: str) -> str:
    """How the methods that the page shows did on other pairs; "" where these weights were not measured. measured: as
    ``benchmarks.faithfulness`` writes it."""
    if measured is None or measured["weights"] != weights:
        return ""
    words, regions = measured["words"][BEST["words"].name], measured["regions"][BEST["regions"].name]
    told = say(
        (
            "Measured on {pairs} other pairs that were answered YES rightly: striking out the strongest words first "
            "beats random orders on {words:.0%} of them, blanking out the strongest regions on {regions:.0%}; the top "
            "word names the shared object on {pointing:.0%}; of four pictures the right one gets {grid:.0%} of the "
            "evidence."
        ),
        pairs=measured["pairs"],
        words=words["better"],
        regions=regions["better"],
        pointing=words["pointing"],
        grid=regions["grid"],
    )
    return f"<p>{told}</p>"
