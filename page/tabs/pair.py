"""The tab "One pair": a question, its answer at once, its explanations after."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import gradio as gr

from musti_model import Explanation

from ..calls import Calls
from ..language import later
from ..markup import paragraph, script
from ..parts.asking import Asking
from ..parts.attention import Attention
from ..parts.gate_board import GateBoard
from ..parts.gate_effect import GateEffect
from ..parts.keeping import Keeping
from ..parts.part import NOTHING, Held, Latest, Measured, Question, Values, measured_of
from ..parts.tour import Tour
from ..parts.verdict import Verdict, verdict_html
from ..parts.vote import Vote, votes_html
from ..parts.what_if import WhatIf
from ..parts.why import Why
from ..tour import TOUR
from ..visit import FAST, LIFETIME, PRIVATE, SILENT, SLOW, STAMP, UNSEEN

WORKING = later("The explanations follow …")
MEASURING = later("How faithful this is, is being tried …")
FAILED = later("The explanations could not be made.")
TOO_LARGE = later("How faithful this is was not measured: these weights are too large for that on this machine.")


class PairTab:
    """Builds the tab inside the Blocks that is open, out of its parts; what happens between them happens here."""

    def __init__(
        self, calls: Calls, examples: list[tuple[Path, str]], scores: dict[str, Any] | None, demo: gr.Blocks
    ) -> None:
        self.calls, self.pipe = calls, calls.pipe
        # The last question that was answered outlives its explanation, to be known as long as the answer is seen.
        question = gr.State(None, time_to_live=2 * LIFETIME)
        explanation, measured = (gr.State(None, time_to_live=LIFETIME) for _ in range(2))
        self.latest, self.when = gr.State(Latest()), gr.Number(visible=False)
        with gr.Row(elem_id="pair"):
            self.asking = Asking(self.pipe, examples)
            with gr.Column(scale=3, min_width=300, elem_id="answer"):
                self.verdict = Verdict()
                with gr.Column(elem_id="below"):  # the style sheet shows it while an answer stands above
                    self.show_around = gr.Button("Show me around", elem_id="show-around")
                    self.held = Held(question, explanation, measured, gr.HTML(elem_id="told"))
                    self.board = GateBoard(self.held)
                    self.why, self.what_if = Why(self.held, calls, scores), WhatIf(self.held, calls)
                    self.effect, self.attention, self.vote = (
                        GateEffect(self.held, calls),
                        Attention(self.held, calls),
                        Vote(self.held, calls),
                    )
                    self.sections = [self.why, self.what_if, self.effect, self.attention, self.vote]
                    self.telling = [s for s in self.sections if s.judged]
                    self.judged = [c for s in self.telling for c in s.judged]
                    self.keeping = Keeping(self.held, examples, self.sections)
                self.tour = Tour(TOUR, self.asking, self.sections)
        self.parts = [self.board, *self.sections]
        self.controls = [c for part in self.parts for c in part.controls]
        self._wire(demo)

    # Events -----------------------------------------------------------------------------------------------------------

    def _wire(self, demo: gr.Blocks) -> None:
        asking, held = self.asking, self.held
        self.views = [*(c for part in self.parts for c in part.shown), held.told]
        self.explained = [held.explanation, held.measured, *self.views, *self.keeping.shown]
        self.shown = [held.question, self.verdict.html, *self.explained]
        accordions = [s.accordion for s in self.sections]
        demo.load(
            self.reopen,
            None,
            [asking.mark, asking.image, asking.passage, self.keeping.opened, *self.controls, *accordions],
            **SILENT,
        )
        given = [self.latest, asking.image, asking.passage, self.when]
        seen = FAST | {"js": STAMP, "show_progress_on": self.verdict.html}
        ask = [asking.button.click, asking.passage.submit, asking.mark.change]
        for event in (
            gr.on(ask, self.answer, given, self.shown, **seen),
            asking.chosen.then(self.answer, given, self.shown, **seen),
        ):
            self._explain(event)
        self.keeping.packs(self._measured(self.keeping.pack.click))
        for done in (self.what_if.tried, self.keeping.packed):
            self._check(done.then)
        for section in self.telling:
            self._check(self._measured(section.accordion.expand).then)
        self._check(lambda *given, **named: gr.on([asking.image.change, asking.passage.change], *given, **named))
        self.tour.starts(self.show_around)

    def _explain(self, asked: gr.events.Dependency) -> None:
        """After an answer: its explanations, and how faithful they are."""
        asking, held = self.asking, self.held
        asked.success(None, js=script("show_verdict.js"), **PRIVATE)
        # The gate is seen in the pass that answers; what takes many passes follows.
        given = [self.latest, held.question, asking.image, asking.passage]
        looked = asked.success(self.look, given, self.board.shown, show_progress_on=self.board.board, **FAST)
        looked.failure(lambda: self.blank(FAILED), None, self.explained, **SILENT)
        self.tour.leads(looked)
        explained = looked.success(
            self.run, given, [held.explanation, held.told, *self.keeping.shown], show_progress_on=held.told, **SLOW
        )
        explained.failure(lambda: self.blank(FAILED), None, self.explained, **SILENT)
        # What is looked at may have changed while the model was at work, so it is asked for anew when there is
        # something to draw.
        drawn = explained.success(self.redraw, {held.explanation, *self.controls}, self.views, **SILENT)
        judged = self._measured(drawn.success, [self.keeping.opened])
        for done in (asked, looked, explained, judged):  # so may the picture or the passage
            self._check(done.then)

    def _measured(self, when: Callable[..., Any], opened: Sequence[gr.Textbox] = ()) -> gr.events.Dependency:
        """After an event: how faithful the explanations are, if that is not known yet and, where fields with the names
        of open sections are given, one of these tells it. It takes as long as the explanations themselves, so nobody
        waits for it who does not ask why."""
        held = self.held
        given = [held.question, held.explanation, held.measured, *opened]
        told = when(self.tell_measuring, given[1:], self.judged, **SILENT)
        # Gradio's own words of a queue, in English, would stand over the line that says it.
        measured = told.success(self.measure, given, [held.measured, *self.judged], **SLOW | UNSEEN)
        measured.failure(lambda: dict.fromkeys(self.judged, ""), None, self.judged, **SILENT)
        return measured.success(self.judge, {held.explanation, held.measured, *self.controls}, self.views, **SILENT)

    def _check(self, when: Callable[..., Any]) -> None:
        """After an event: see to it that no answer stands beside another question."""
        when(
            self.settle,
            [self.latest, self.held.question, self.asking.image, self.asking.passage, self.when],
            self.verdict.html,
            js=STAMP,
            **SILENT,
        )

    # Questions and answers --------------------------------------------------------------------------------------------

    def answer(self, latest: Latest, image: str | None, passage: str, when: float) -> Values:
        """The verdict and the votes alone; they come at once, and whatever else stood there was about another
        question."""
        latest.asked = when
        try:
            prediction = self.calls.predict(image, passage)
            verdict, votes, failed = (
                verdict_html(prediction),
                votes_html(prediction, self.pipe.config.temperature),
                False,
            )
        except gr.Error as error:
            verdict, votes, failed = self.verdict.failed(error), "", True
        if latest.asked != when:
            return gr.skip()  # another question was asked meanwhile
        question = Question(image or "", passage, when, failed, verdict)
        return self.blank("" if failed else WORKING) | {
            self.held.question: question,
            self.verdict.html: verdict,
            self.vote.votes: votes,
        }

    def look(self, latest: Latest, question: Question | None, image: str | None, passage: str) -> Values:
        """The gate board of the question that was answered last; none if picture or passage are others meanwhile."""
        if not self._stands(question, image, passage):
            return gr.skip()
        explanation = self.calls.look(question.image, question.passage)
        return self.board.draw(explanation, {}) if latest.asked == question.asked else gr.skip()

    @staticmethod
    def _stands(question: Question | None, image: str | None, passage: str) -> TypeGuard[Question]:
        """Whether this is the question that was answered."""
        return question is not None and not question.failed and question[:2] == (image, passage)

    def run(self, latest: Latest, question: Question | None, image: str | None, passage: str) -> Values:
        """The explanations of the same. What is not explained, since picture or passage are others meanwhile, may be
        put back."""
        if not self._stands(question, image, passage):
            left = question is not None and latest.asked == question.asked
            return {self.held.told: paragraph(NOTHING)} if left else gr.skip()
        explanation = self.calls.explain(question.image, question.passage)
        return (
            {self.held.explanation: explanation} | self.keeping.blank() if latest.asked == question.asked else gr.skip()
        )

    def redraw(self, given: Values) -> Values:
        """Every view of an explanation as the controls stand now."""
        explanation: Explanation | None = given[self.held.explanation]
        if explanation is None:
            return gr.skip()
        return self._of_parts(lambda part: part.draw(explanation, given)) | {self.held.told: ""}

    def _to_measure(
        self, explanation: Explanation | None, measured: Measured | None, opened: Sequence[str | None]
    ) -> bool:
        names = " ".join(name or "" for name in opened).split()  # a field that was never filled holds None
        return (
            explanation is not None
            and measured_of(explanation, measured) is None
            and (not opened or any(section.name in names for section in self.telling))
        )

    def tell_measuring(self, explanation: Explanation | None, measured: Measured | None, *opened: str | None) -> Values:
        """That it is being tried, or the sentence where that cannot be, in the place of what will be said."""
        if not self._to_measure(explanation, measured, opened):
            return gr.skip()
        return dict.fromkeys(self.judged, paragraph(MEASURING if self.pipe.many_passes else TOO_LARGE))

    def measure(
        self, question: Question | None, explanation: Explanation | None, measured: Measured | None, *opened: str | None
    ) -> Values:
        """How faithful these explanations are."""
        if (
            question is None
            or explanation is None
            or not self.pipe.many_passes
            or not self._to_measure(explanation, measured, opened)
        ):
            return gr.skip()
        return {
            self.held.measured: Measured(
                explanation.asked, self.calls.measure(question.image, question.passage, explanation)
            )
        }

    def judge(self, given: Values) -> Values:
        """How faithful each view is, beside it; as it stands while nothing is measured."""
        explanation: Explanation | None = given[self.held.explanation]
        measured = measured_of(explanation, given[self.held.measured])
        if explanation is None or measured is None:
            return gr.skip()
        return self._of_parts(lambda part: part.judge(explanation, measured, given))

    def settle(self, latest: Latest, question: Question | None, image: str | None, passage: str, when: float) -> Values:
        """The verdict of the last question stands as long as picture and passage are its own. The style sheet hides all
        that stands below with it, and shows it again when they are put back: it is of that question, too. What left
        the browser before the question was asked says nothing about it, and nothing that was overtaken by a later
        message does; where nothing was asked there is nothing to settle. The verdict is given again, because a message
        that took it away may have arrived after it."""
        if when < latest.settled:
            return gr.skip()
        latest.settled = when
        if question is not None and question[:2] == (image or "", passage):
            return {self.verdict.html: question.verdict}
        if question is None or when <= latest.asked:
            return gr.skip()
        return {self.verdict.html: self.verdict.waiting()}

    def blank(self, told: str = "") -> Values:
        """No explanation. told: what is going on, in English."""
        states = {
            self.held.explanation: None,
            self.held.measured: None,
            self.held.told: paragraph(told) if told else "",
        }
        return self._of_parts(lambda part: part.blank()) | self.keeping.blank() | states

    def _of_parts(self, values: Callable[[Any], Values]) -> Values:
        """What all parts give, together."""
        return {component: value for part in self.parts for component, value in values(part).items()}

    def reopen(self, request: gr.Request) -> Values:
        """Example, controls and open sections of the address, if it names an example; the mark's change asks for the
        answer."""
        number, chosen = self.keeping.reopened(dict(request.query_params))
        return gr.skip() if number is None else self.asking.filled(number, "reopened") | chosen
