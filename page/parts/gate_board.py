"""The gate board: which words the picture opened the gate for, and where in the picture each of them looked. What it
shows comes in one answer; looking around happens in the browser (``static/gate_board.js``)."""

import base64
import json
from typing import Any

import gradio as gr
import numpy as np

from musti_model import Explanation, Prediction
from musti_model.fusion import GATES
from musti_model.results import Gate, Shut

from ..language import Told, language, later, say
from ..markup import data_url, literal, script
from ..names import branch_name
from .part import Held, Part, Values

TEMPLATE = '{{#if value.told}}<p>{{value.told}}</p>{{/if}}<div class="gate-board" data-board="{{value.board}}"></div>'
EMPTY = {"told": "", "board": ""}
CLOSED = 0.1  # widest opening under which the gate is said to have stayed shut

BY_WORD = later(
    "The fuller a word's colour, the further the gate opened there, and the more of what the word met in the "
    "picture is read with it. It shows what was let in, not that this decided the answer; that is what the gate's "
    "switch tells."
)
BY_ORDER = later(
    "These weights have the published gate, with the same three numbers for every word: a word's colour is the "
    "picture's share in what is read there. Here words meet places by reading order, so a coloured place is no "
    "finding of a thing."
)


class GateBoard(Part):
    """The board below the answer, the centre of the page."""

    def __init__(self, held: Held) -> None:
        super().__init__(held)
        Told(
            lambda: f"<h3>{say('The gate (text selection feature, TSF): what the picture added to each word')}</h3>",
            elem_id="gate-title",
            elem_classes="prose",
        )
        self.board = gr.HTML(EMPTY, html_template=TEMPLATE, js_on_load=script("gate_board.js"), elem_id="gate-board")
        self.shown = [self.board]

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """The whole board; looking around on it asks nothing."""
        return {self.board: gate_board_value(explanation)}

    def blank(self) -> Values:
        """An empty board."""
        return {self.board: EMPTY}


def gate_board_value(explanation: Explanation | None) -> dict[str, str]:
    """What the component shows of an explanation: a sentence, if there is one to be said, and the board as JSON."""
    if explanation is None:
        return EMPTY
    if not explanation.gates:
        return {
            "told": literal(say("These weights have no gate: the picture does not touch the text before the cosine.")),
            "board": "",
        }
    told = (
        say(
            "The gate stayed nearly shut at every word: in the picture the model found nothing that the words it read "
            "name."
        )
        if _closed(explanation)
        else ""
    )
    return {"told": literal(told), "board": literal(json.dumps(_board(explanation), ensure_ascii=False))}


def _closed(explanation: Explanation) -> bool:
    widest = max((max(g.words, default=0.0) for g in explanation.gates.values()), default=0.0)
    return GATES[explanation.gate].by_word and widest < CLOSED


def _board(explanation: Explanation) -> dict[str, Any]:
    image, shut, prediction = explanation.image, explanation.shut, explanation.prediction
    answers = {"learned": _answer(prediction, prediction.threshold)} | (
        {"shut": _answer(shut, prediction.threshold)} if shut else {}
    )
    return {
        "language": language(),
        "picture": data_url(image),
        "ratio": image.width / image.height,
        "segments": segments(explanation),
        "words": explanation.words,
        "branches": [_branch(name, gate) for name, gate in explanation.gates.items()],
        "answers": answers,
        "texts": _texts(explanation),
        "places": any(g.meeting is not None for g in explanation.gates.values()),
    }


def _answer(given: Prediction | Shut, threshold: float) -> dict[str, Any]:
    answer = say("YES") if given.probability >= threshold else say("NO")
    return {"probability": given.probability, "votes": given.votes, "answer": answer}


def segments(explanation: Explanation) -> list[tuple[str, int]]:
    """The whole passage in pieces: (text, number of the word that it is, -1 for what stands between words)."""
    pieces, end = [], 0
    for at, (start, stop) in enumerate(explanation.word_spans):
        if start > end:
            pieces.append((explanation.passage[end:start], -1))
        pieces.append((explanation.passage[start:stop], at))
        end = stop
    return [*pieces, (explanation.passage[end:], -1)] if end < len(explanation.passage) else pieces


def _branch(name: str, gate: Gate) -> dict[str, Any]:
    """Openings with three digits; meetings in 256 steps of the largest."""
    result: dict[str, Any] = {"name": name, "label": branch_name(name), "opening": [round(v, 3) for v in gate.words]}
    if gate.meeting is None:
        return result | {"rows": 1, "columns": 1, "meeting": None, "largest": 0.0}
    largest = max(float(gate.meeting.max(initial=0.0)), 1e-9)
    steps = np.round(gate.meeting / largest * 255).astype(np.uint8)
    rows, columns = gate.meeting.shape[1:]
    return result | {
        "rows": rows,
        "columns": columns,
        "meeting": base64.b64encode(steps.tobytes()).decode(),
        "largest": largest,
    }


def _texts(explanation: Explanation) -> dict[str, str]:
    by_word = GATES[explanation.gate].by_word
    return {
        "whole": say("Point at a word or at a place in the picture; a click keeps it."),
        "shut": say("With the gate shut the passage is read without the picture."),
        "word": say("“{word}”: the gate opens by {opening} ({branches}).")
        if by_word
        else say("“{word}”: the picture's share is {opening} ({branches})."),
        "looked": say("It looked most at row {row} of {rows}, column {column} of {columns}."),
        "closed": say("That is nearly shut, so where the word looked hardly counts.") if by_word else "",
        "place": say("Row {row} of {rows}, column {column} of {columns}: what was let in of it went to {words}."),
        "placeless": say("The image tokens of this branch have no place in the picture."),
        "nobody": say("Row {row} of {rows}, column {column} of {columns}: hardly anything of it was let in."),
        "learned": say("as learned"),
        "off": say("shut"),
        "gate": say("Gate"),
        "branch": say("Branch"),
        "both": say("all"),
        "answer": say("answer"),
        "probability": say("probability of YES"),
        "vote": say("vote of {branch}"),
        "picture": say("The picture; the arrow keys move over its places"),
        "passage": say("The words that were read; the arrow keys move among them"),
        "scale": say("how far the gate opened:") if by_word else say("the picture's share:"),
        "placeScale": say("how much of each place was let in (1: at least eight times an equal share):"),
        "note": say(BY_WORD if by_word else BY_ORDER),
    }
