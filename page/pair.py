"""The tab "One pair": a question, its answer at once, its explanations after."""

import time
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from musti_model import Alteration, Explanation, Sentence
from musti_model.fusion import Opened
from musti_model.results import Faithfulness

from . import gate_board as gated
from .board import EMPTY, SCRIPT, TEMPLATE, alteration_of, board_value, what_if_html
from .calls import Calls
from .examples import sources_html
from .inputs import SafeImage
from .language import Told, later, refusal, said_texts, say, sentence
from .link import FULL_ADDRESS, query_of, reopened
from .take_away import zipped
from .views import (
    QUICK,
    SPARED,
    THOROUGH,
    WHOLE,
    attention_html,
    branch_name,
    effect_figure,
    effect_html,
    evidence_figure,
    evidence_html,
    judged_parts,
    map_figure,
    object_name,
    score_html,
    verdict_html,
    view_choices,
    votes_html,
)
from .visit import FAST, LIFETIME, PRIVATE, SILENT, SLOW, STAMP

# On a narrow screen the answer lies far below the button; screen readers are told of it.
SHOW_VERDICT = """() => { const v = document.querySelector("#verdict");
  if (v.getBoundingClientRect().top > innerHeight) v.scrollIntoView({block: "start"}); }"""
WORKING = later("The explanations follow …")
FAILED = later("The explanations could not be made.")
WAITING = later("Press “Compare” for the answer.")
NOTHING = later("There is nothing to show yet; if nothing follows, press “Compare”.")  # also after an answer has expired
SETTINGS = ("part", "branch", "view", "head", "words", "opacity", "stretch")  # what a link keeps, in the order of ``chosen``
DRAWING = SILENT | {"trigger_mode": "always_last"}


class Question(NamedTuple):
    """What was asked last, and what it got. image: a picture's file; asked: when, in ms by the visitor's own clock; failed: it got a sentence instead
    of an answer; verdict, votes: HTML."""

    image: str
    passage: str
    asked: float
    failed: bool
    verdict: str
    votes: str


def paragraph(text: str) -> str:
    """A sentence of ours in the visitor's language, as HTML."""
    return f"<p>{say(text)}</p>"


def alert(error: gr.Error) -> str:
    """What went wrong, as HTML."""
    return f'<div class="notice" role="alert">{escape(str(error.message))}</div>'


def shown_map(label: str, elem_id: str, alt_text: str) -> gr.Image:
    """A picture that is shown, and can be downloaded, and nothing else."""
    return gr.Image(label=label, interactive=False, buttons=["download"], elem_id=elem_id, format="png", alt_text=alt_text, visible=False)


def framed(figure: Any, legend: str) -> tuple[dict, str]:
    """A map and its legend; no empty frame where there is none."""
    return gr.update(value=figure, visible=figure is not None), legend


class PairTab:
    """Builds the tab inside the Blocks that is open; its components are attributes, its handlers methods."""

    def __init__(self, calls: Calls, examples: list[tuple[Path, str]], scores: dict[str, Any] | None, demo: gr.Blocks) -> None:
        self.calls, self.pipe, self.examples, self.scores, self.demo = calls, calls.pipe, examples, scores, demo
        self.branches = [(branch_name(b.name), b.name) for b in self.pipe.config.branches]
        self.names = [name for _, name in self.branches]
        self.views = view_choices(self.pipe)
        self.gated, self.by_word = self.pipe.model.fusion.gated, self.pipe.model.fusion.by_word
        self.most_heads = max((self.heads_of(n) for n, b in self.pipe.model.branches.items() if b.is_vit), default=1)
        self.state, self.measured = gr.State(None, time_to_live=LIFETIME), gr.State(None, time_to_live=LIFETIME)
        # The last question that was answered: it outlives its explanation, to be known as long as the answer is seen.
        self.question = gr.State(None, time_to_live=2 * LIFETIME)
        self.when, self.query = gr.Number(visible=False), gr.Textbox(visible=False)
        self.mark = gr.Textbox(visible="hidden", elem_id="mark", label="")  # in the page, or its change would tell nobody
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                self._ask()
            with gr.Column(scale=3, min_width=300):
                self._answer()
        self._wire()

    # Components -----------------------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        self.image = SafeImage(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture", height=300, elem_id="picture")
        self.passage = gr.Textbox(label="Passage", lines=5, max_lines=14, elem_id="passage", info="Ctrl+Enter compares.", placeholder="Paste a passage that speaks of a smell …")
        self.button = gr.Button("Compare", variant="primary", elem_id="run")
        rows = [[str(path), text] for path, text in self.examples]
        self.gallery = gr.Examples(
            rows, [self.image, self.passage], label="Examples (answer at once)", cache_examples=False, **PRIVATE
        )
        with gr.Accordion("Where the examples are from", open=False):
            Told(sources_html)
        if self.pipe.objects:
            with gr.Accordion(Sentence("The {count} objects these weights know", count=len(self.pipe.objects)), open=False):
                Told(lambda: escape(", ".join(map(object_name, self.pipe.objects))))

    def _answer(self) -> None:
        self.verdict = gr.HTML(Sentence("The answer appears here."), elem_id="verdict")
        self.gate_board = gr.HTML(gated.EMPTY, html_template=gated.TEMPLATE, js_on_load=gated.SCRIPT, elem_id="gate-board")
        with gr.Tabs() as self.tabs:
            for name, title, build in (
                ("why", "Why", self._why), ("what-if", "What if", self._what_if), ("vote", "Vote", self._vote), ("gate", "Gate effect", self._gate),
                ("overlays", "Overlays", self._overlays), ("words", "Words", self._words),
            ):  # fmt: skip
                with gr.Tab(title, id=name):
                    build()
        with gr.Row():
            self.opacity = gr.Slider(0, 1, value=0.55, step=0.05, label="Opacity of overlays", elem_id="opacity")
            note = "From the smallest to the largest value: small differences look large."
            self.stretch = gr.Checkbox(False, label="Stretch colours", elem_id="stretch", info=note)
        with gr.Row():
            self.make_link = gr.Button("Link to this view (examples only: uploads are not kept)", size="sm", elem_id="make-link")
            self.pack = gr.Button("Take away (zip of maps and numbers)", size="sm", elem_id="pack")
            self.bundle = gr.File(label="Zip", interactive=False, visible="hidden", elem_id="bundle", height=80)
        self.link = gr.Textbox(label="Link", interactive=False, buttons=["copy"], visible="hidden", elem_id="link")

    def _why(self) -> None:
        self.part = gr.Radio([("Whole model", WHOLE), *self.branches], value=WHOLE, label="Evidence of", elem_id="part")
        self.evidence = gr.HTML(elem_id="evidence")
        alt = "The picture with regions that speak for YES in orange and against it in purple; the legend below gives the values"
        self.evidence_map, self.evidence_legend = shown_map("Regions for and against", "evidence-map", alt), gr.HTML()
        self.faithful = gr.HTML(elem_id="faithful")
        gr.Markdown(QUICK if not self.pipe.many_passes else SPARED if self.pipe.spared else THOROUGH)
        if self.pipe.many_passes:
            Told(lambda: score_html(self.scores, f"{self.pipe.name} ({self.pipe.revision})"), elem_id="score")

    def _what_if(self) -> None:
        self.altered = gr.HTML(elem_id="altered")
        with gr.Row():
            self.gate_state = gr.Radio(self.gate_states(), value="learned", label="Gate", elem_id="gate-state", visible=self.gated)
            self.voting = gr.CheckboxGroup(self.branches, value=self.names, label="Branches that vote", elem_id="voting")
        self.board = gr.HTML(EMPTY, html_template=TEMPLATE, js_on_load=SCRIPT, elem_id="board")
        self.undo = gr.Button("Put everything back", size="sm", elem_id="undo")
        gr.Markdown(
            "Words are taken out of the passage, cells get the picture's mean colour. A branch that does not vote gives its weight to "
            "those that do. With the gate shut the passage is read without the picture."
        )

    def gate_states(self) -> list[tuple[str, str]]:
        """(label, state) of the gate that can be tried out."""
        states = [(later("As learned"), "learned"), (later("Shut"), "shut")]
        return [*states, (later("Open at every word alike"), "open")] if self.by_word else states

    def _vote(self) -> None:
        self.votes = gr.HTML(elem_id="votes")

    def _gate(self) -> None:
        self.branch = gr.Radio(self.branches, value=self.names[0], label="Image branch", elem_id="branch")
        self.gate = gr.HTML(elem_id="gate")
        alt = "The picture with what each patch changed in the answer through the gate; the legend below gives the values"
        self.gate_map, self.gate_legend = shown_map("Patches through the gate", "gate-map", alt), gr.HTML()
        self.faithful_gate = gr.HTML(elem_id="faithful-gate")

    def _overlays(self) -> None:
        self.view = gr.Dropdown(self.views, value=self.views[0][1] if self.views else None, label="Overlay", elem_id="view")
        self.head = gr.Slider(1, max(2, self.most_heads), value=1, step=1, label="Head", elem_id="head", visible=False)
        alt = "The picture with the chosen map laid over it; the legend below gives the values"
        self.attention_map, self.attention_legend = shown_map("Overlay", "attention-map", alt), gr.HTML()
        self.faithful_map = gr.HTML(elem_id="faithful-map")
        gr.Markdown(
            "Attention and Grad-CAM show where the model looked and which regions raised its score; neither proves why it answered as it did."
        )

    def _words(self) -> None:
        self.word_branch = gr.Radio(self.branches, value=self.names[0], label="Text read with the picture of branch", elem_id="word-branch")
        self.words = gr.HTML(elem_id="words")
        self.faithful_words = gr.HTML(elem_id="faithful-words")
        gr.Markdown("Last-layer attention of the text encoder's summary token, mean of its heads: where it looked, not why the model decided.")

    # Events ---------------------------------------------------------------------------------------------------------------------

    def _wire(self) -> None:
        self.chosen = [self.part, self.branch, self.view, self.head, self.word_branch, self.opacity, self.stretch]
        self.switches = [self.board, self.gate_state, self.voting]
        self.why = [self.evidence, self.evidence_map, self.evidence_legend]
        self.through = [self.gate, self.gate_map, self.gate_legend]
        self.overlaid = [self.attention_map, self.attention_legend]
        self.looked_at = [self.part, self.branch, self.view, self.word_branch]
        self.judged = [self.faithful, self.faithful_gate, self.faithful_map, self.faithful_words]
        self.reset = [self.bundle, *self.switches, self.altered]
        self.views_shown = [self.gate_board, *self.why, *self.through, *self.overlaid, self.words]
        self.explained = [*self.reset, *self.views_shown, self.measured, *self.judged]
        self.shown = [self.state, self.verdict, self.votes, *self.explained]
        self._wire_questions()
        self._wire_views()
        self._wire_alterations()

    def _wire_questions(self) -> None:
        given, told = [self.image, self.passage, self.when], [self.question, *self.shown]
        self.demo.load(self.reopen, None, [self.mark, self.image, self.passage, *self.chosen], **SILENT)
        # Gradio's examples bring the components back as they were built, in English.
        self.gallery.load_input_event.then(self.relabel, None, [self.image, self.passage], **SILENT)
        asked = [
            gr.on([self.button.click, self.passage.submit, self.mark.change], self.answer, given, told, js=STAMP, **FAST),
            self.gallery.load_input_event.then(self.answer, given, told, js=STAMP, **FAST),
        ]
        for event in asked:
            event.success(None, js=SHOW_VERDICT, **PRIVATE)
            explained = event.success(self.run, [self.question, self.image, self.passage], [self.state, *self.reset], **SLOW)
            explained.failure(lambda: self.blank(paragraph(FAILED)), None, self.explained, **SILENT)
            # What is looked at may have changed while the model was at work, so it is asked for anew when there is something to draw.
            drawn = explained.success(self.redraw, [self.state, *self.chosen], self.views_shown, **SILENT)
            measured = drawn.success(self.measure, [self.question, self.state], [self.measured, self.faithful], **SLOW)
            judged = measured.success(self.judge, [self.state, self.measured, *self.looked_at], self.judged, **SILENT)
            for done in (event, explained, judged):  # so may the picture or the passage
                self._check(done.then)
        self._check(lambda *given, **named: gr.on([self.image.change, self.passage.change], *given, **(DRAWING | named)))

    def show_example(self, button: gr.Button, number: int, view: str, pages: gr.Tabs) -> None:
        """Has a button elsewhere on the page open this tab, ask an example (counted from 0) and show a view of the answer."""
        picture, passage = self.examples[number]

        def show() -> tuple:
            return gr.Tabs(selected="pair"), gr.Tabs(selected=view), str(picture), passage, f"{number} {time.time()}"

        button.click(show, None, [pages, self.tabs, self.image, self.passage, self.mark], **SILENT)

    def _check(self, when: Callable[..., Any]) -> None:
        """After an event: see to it that no answer stands beside another question."""
        when(self.settle, [self.question, self.image, self.passage, self.when], self.shown, js=STAMP, **SILENT)

    def _wire_views(self) -> None:
        redrawn = [self.opacity.change, self.stretch.change]
        gr.on([self.part.change, self.opacity.change], self.show_evidence, [self.state, self.part, self.opacity], self.why, **DRAWING)
        gr.on([self.branch.change, self.opacity.change], self.show_effect, [self.state, self.branch, self.opacity], self.through, **DRAWING)
        given = [self.state, self.view, self.head, self.opacity, self.stretch]
        gr.on([self.view.change, self.head.change, *redrawn], self.show_map, given, self.overlaid, **DRAWING)
        self.view.change(self.show_head, self.view, self.head, **DRAWING)
        given = [self.state, self.measured, *self.looked_at]
        gr.on([x.change for x in self.looked_at], self.judge, given, self.judged, **DRAWING)
        gr.on([self.word_branch.change, self.stretch.change], self.show_attention, [self.state, self.word_branch, self.stretch], self.words, **DRAWING)

    def _wire_alterations(self) -> None:
        changed = [self.board.input, self.gate_state.input, self.voting.input]
        given = [self.question, self.state, *self.switches]
        tried = gr.on(changed, self.alter, given, self.altered, trigger_mode="always_last", show_progress="minimal", **FAST)
        tried.failure(lambda: "", None, self.altered, **SILENT)
        packed = self.pack.click(self.pack_up, [self.state, self.measured], self.bundle, **PRIVATE)
        for done in (tried, packed):
            self._check(done.then)
        self.undo.click(self.put_back, self.state, [*self.switches, self.altered], **FAST)  # queued after an alteration still at work
        made = self.make_link.click(self.link_to, [self.question, self.state, *self.chosen], [self.query, self.link], **PRIVATE)
        made.success(None, self.query, self.link, js=FULL_ADDRESS, **PRIVATE)

    # Questions and answers ------------------------------------------------------------------------------------------------------

    def answer(self, image: str | None, passage: str, when: float) -> tuple:
        """The verdict alone; it comes at once, and whatever else stood there was about another question."""
        try:
            prediction = self.calls.predict(image, passage)
            shown = verdict_html(prediction), votes_html(prediction, self.pipe.config.temperature)
            failed, told = False, paragraph(WORKING)
        except gr.Error as error:  # a sentence that stays where the answer would stand; a toast would be gone before it is acted on
            shown, failed, told = (alert(error), ""), True, ""
        return Question(image or "", passage, when, failed, *shown), None, *shown, *self.blank(told)

    def relabel(self) -> tuple[dict, dict]:
        """Picture and passage in the visitor's language."""
        return tuple(gr.update(**said_texts(component)) for component in (self.image, self.passage))

    def run(self, question: Question | None, image: str | None, passage: str) -> tuple:
        """The explanations of the question that was answered last; none if picture or passage are others meanwhile."""
        if question is None or question.failed or question[:2] != (image, passage):
            return (gr.skip(),) * (1 + len(self.reset))
        e = self.calls.explain(question.image, question.passage)
        return e, None, *self.put_back(e)

    def redraw(self, e: Explanation | None, *chosen: Any) -> tuple:
        """Every view of an explanation as the controls stand now."""
        if e is None:
            return (gr.skip(),) * len(self.views_shown)
        part, branch, view, head, word_branch, opacity, stretch = chosen
        return (
            gated.gate_board_value(e), *self.show_evidence(e, part, opacity), *self.show_effect(e, branch, opacity),
            *self.show_map(e, view, head, opacity, stretch), self.show_attention(e, word_branch, stretch),
        )  # fmt: skip

    def measure(self, question: Question | None, explanation: Explanation | None) -> tuple:
        """How faithful these explanations are; a sentence where that cannot be measured."""
        if question is None or explanation is None:
            return None, ""
        if not self.pipe.many_passes:
            return None, paragraph("How faithful this is was not measured: these weights are too large for that on this machine.")
        return self.calls.measure(question.image, question.passage, explanation), gr.skip()

    def judge(self, explanation: Explanation | None, measured: dict[str, Faithfulness] | None, *looked_at: str | None) -> tuple:
        """The sentences beside the overlays; as they stand while nothing is measured."""
        if explanation is None or measured is None:
            return (gr.skip(),) * len(self.judged)
        return judged_parts(explanation.prediction.label, measured, *looked_at)

    def settle(self, question: Question | None, image: str | None, passage: str, when: float) -> tuple:
        """The verdict of the last question stands as long as picture and passage are its own; else nothing does. What left the browser before the
        question was asked says nothing about it; where nothing was asked there is nothing to settle. The verdict is given again, because a message that took
        the one before away may have arrived after it."""
        skipped = (gr.skip(),) * len(self.explained)
        if question is not None and question[:2] == (image or "", passage):
            return gr.skip(), question.verdict, question.votes, *skipped
        if question is None or when <= question.asked:
            return (gr.skip(),) * 3 + skipped
        return None, paragraph(WAITING), "", *self.blank("")

    def blank(self, words: str) -> tuple:
        """What stands in the place of ``explained``."""
        empty = framed(None, "")
        return None, *self.put_back(None), gated.EMPTY, words, *empty, words, *empty, *empty, words, None, *[""] * len(self.judged)

    # Alterations, links, zips ---------------------------------------------------------------------------------------------------

    def put_back(self, explanation: Explanation | None) -> tuple:
        """The board, the gate's switch, the voting branches and the altered answer, as if nothing had been altered."""
        told = "" if explanation is None else what_if_html(explanation.prediction, explanation.prediction.probability, Alteration())
        return board_value(explanation), "learned", self.names, told

    def alter(self, question: Question | None, explanation: Explanation | None, value: dict, gate: Opened, voting: list[str]) -> str:
        """The altered answer beside the old one."""
        if question is None or explanation is None:
            return paragraph(NOTHING)
        alteration = alteration_of(value, gate, voting, self.names)
        old = explanation.prediction
        try:
            new = self.calls.alter(question.image, question.passage, alteration) if alteration.changes else old.probability
        except gr.Error as error:
            return alert(error)
        return what_if_html(old, new, alteration)

    def pack_up(self, explanation: Explanation | None, measured: dict[str, Faithfulness] | None) -> dict:
        """The zip."""
        if explanation is None:
            raise refusal("There is nothing to take away yet; press “Compare” first.")
        path = sentence(lambda: zipped(explanation, measured, self.bundle.move_resource_to_block_cache))
        return gr.update(value=path, visible=True)

    def link_to(self, question: Question | None, explanation: Explanation | None, *settings: Any) -> tuple:
        """The query of a link, and the field that will show the whole."""
        named = dict(zip(SETTINGS, settings, strict=True))
        return sentence(lambda: query_of(question[:2] if question and explanation else None, self.examples, named)), gr.update(visible=True)

    def reopen(self, request: gr.Request) -> list:
        """A mark, example and settings of the address, if it names an example; the mark's change asks for the answer."""
        choices = {
            "part": [WHOLE, *self.names], "branch": self.names, "view": [v for _, v in self.views],
            "head": list(range(1, self.most_heads + 1)), "words": self.names, "opacity": [n / 20 for n in range(21)], "stretch": [False, True],
        }  # fmt: skip
        example, named = reopened(dict(request.query_params), self.examples, choices)
        if example is None:
            return [gr.skip()] * (3 + len(SETTINGS))
        return ["reopened", str(example[0]), example[1], *[named.get(name, gr.skip()) for name in SETTINGS]]

    # Views: no model runs -------------------------------------------------------------------------------------------------------

    def show_evidence(self, explanation: Explanation | None, part: str, opacity: float) -> tuple:
        """The coloured passage, the map, its legend."""
        if explanation is None:
            return paragraph(NOTHING), *framed(None, "")
        return evidence_html(explanation, part), *framed(*evidence_figure(explanation, part, opacity))

    def show_effect(self, explanation: Explanation | None, branch: str, opacity: float) -> tuple:
        """The coloured passage, the map, its legend."""
        if explanation is None:
            return paragraph(NOTHING), *framed(None, "")
        return effect_html(explanation, branch), *framed(*effect_figure(explanation, branch, opacity))

    def show_map(self, explanation: Explanation | None, view: str | None, head: int, opacity: float, stretch: bool) -> tuple:
        """An attention map or Grad-CAM, and its legend."""
        return framed(*((None, paragraph(NOTHING)) if explanation is None else map_figure(explanation, view, head, opacity, stretch)))

    def show_head(self, view: str | None) -> dict:
        """The slider of heads, where the view is of one head."""
        kind, _, branch = (view or "").partition(":")
        heads = self.heads_of(branch) if kind == "heads" else 1
        return gr.update(visible=heads > 1, maximum=max(2, heads))

    def heads_of(self, branch: str) -> int:
        """Attention heads of a ViT branch's last layer."""
        return self.pipe.model.branches[branch].backbone.blocks[-1].attn.num_heads

    def show_attention(self, explanation: Explanation | None, branch: str, stretch: bool) -> str:
        """The passage coloured by attention."""
        return paragraph(NOTHING) if explanation is None else attention_html(explanation, branch, stretch)
