"""The gate board: what the server hands over, and how it behaves in a browser, without asking the server again."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from musti_model import MustiPipeline, MustiProcessor
from page.parts.gate_board import gate_board_value, segments
from tests.browser import answered, ask, new_context, new_tab, served
from tests.conftest import GATES, pipeline, tiny_config, tiny_model

PASSAGE = "She pressed the nosegay to her face; the roses filled the whole chamber with their scent."


@pytest.fixture(scope="module")
def explain(tokenizer):
    """Explanations of a tiny model with a gate of some kind."""

    def explained(gate: str, passage: str = PASSAGE):
        model = tiny_model(**GATES[gate])
        return MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu").explain(
            Image.new("RGB", (60, 40), "green"), passage
        )

    return explained


def test_the_board_holds_what_the_explanation_says(explain):
    explanation = explain("word")
    board = json.loads(re.sub(r"\\([\\$])", r"\1", gate_board_value(explanation)["board"]))
    assert "".join(text for text, _ in board["segments"]) == PASSAGE and board["words"] == explanation.words
    for branch in board["branches"]:
        gate = explanation.gates[branch["name"]]
        assert branch["opening"] == pytest.approx(gate.words, abs=6e-4)
        steps = np.frombuffer(base64.b64decode(branch["meeting"]), np.uint8).reshape(gate.meeting.shape)
        assert np.allclose(steps / 255 * branch["largest"], gate.meeting, atol=branch["largest"] / 255)
    answers = board["answers"]
    assert (
        answers["learned"]["probability"] == explanation.prediction.probability
        and answers["shut"]["votes"] == explanation.shut.votes
    )


def test_the_shut_gate_answers_as_what_if_does(explain, tokenizer):
    from musti_model import Alteration

    model = tiny_model(**GATES["word"])
    pipe, picture = (
        MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu"),
        Image.new("RGB", (60, 40), "green"),
    )
    explanation = pipe.explain(picture, PASSAGE)
    assert explanation.shut.probability == pytest.approx(
        pipe.what_if(picture, PASSAGE, Alteration(gate="shut")), abs=1e-6
    )
    logit = sum(explanation.shut.votes.values()) + explanation.prediction.vote_bias
    assert 1 / (1 + np.exp(-logit / model.config.temperature)) == pytest.approx(explanation.shut.probability, abs=1e-5)
    assert explanation.manifest()["shut"] == {
        "probability": explanation.shut.probability,
        "votes": explanation.shut.votes,
    }


def test_segments_give_the_passage_back(explain):
    explanation = explain("word", "  Roses,\n\nroses and  more roses …  ")
    pieces = segments(explanation)
    assert "".join(text for text, _ in pieces) == explanation.passage
    assert [text for text, at in pieces if at >= 0] == explanation.words and [
        at for _, at in pieces if at >= 0
    ] == list(range(len(explanation.words)))


def told(page) -> str:
    return page.locator(".gate-told").inner_text()


def coloured(page) -> int:
    """How many pixels of the map are clearly coloured."""
    return page.evaluate(
        "() => { const c = document.querySelector('.gate-picture canvas'); const d = "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 3; i < d.length; i "
        "+= 4) n += d[i] > 60; return n / (d.length / 4); }"
    )


def grey(page) -> bool:
    """Whether the picture lies grey under the map, whose one hue is then seen on any."""
    picture = page.locator(".gate-picture img")
    return "grayscale(1)" in picture.evaluate("picture => getComputedStyle(picture).filter")


def filled(page) -> dict[str, float]:
    """Word -> how full its colour is; of a word that stands twice, the fuller."""
    pairs = page.evaluate(
        "[...document.querySelectorAll('.gate-word')].map(w => [w.innerText, "
        "+(w.style.backgroundColor.match(/[0-9.]+(?=\\))/) || [0])[0]])"
    )
    result: dict[str, float] = {}
    for word, full in pairs:
        result[word] = max(full, result.get(word, 0))
    return result


@pytest.fixture(scope="module")
def published_url(tokenizer, uploads):
    """The page on the published gate, with a branch whose tokens have no place in the picture."""
    vit, resnet = tiny_config().branches
    with served(pipeline(tokenizer, branches=(vit, replace(resnet, axes="published")))) as address:
        yield address


def opened(tab, address: str, flower, passage: str = PASSAGE) -> None:
    """Asks a question, and waits until all is told."""
    tab.goto(address)
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    ask(tab, flower, passage)
    answered(tab)


def held(tab) -> dict:
    """What the board was given."""
    return json.loads(tab.evaluate("document.querySelector('.gate-board').dataset.board"))


def widest(tab) -> tuple[str, int]:
    """The word at which the gate opens most, mean of the branches, and its number."""
    board = held(tab)
    at = int(np.mean([b["opening"] for b in board["branches"]], axis=0).argmax())
    return board["words"][at], at


@pytest.fixture(scope="module")
def asked_once(browser, url, flower):
    """A tab with one answer: enough for all that happens in the browser."""
    tab = new_tab(browser)
    opened(tab, url, flower)
    yield tab
    tab.close()


@pytest.fixture
def board(asked_once):
    """The same as it stood at first; afterwards: nothing was asked of the server, and no script failed."""
    asked_once.locator(".gate-switch").get_by_role("radio", name="as learned").click()
    asked_once.locator(".gate-switch").get_by_role("radio", name="all", exact=True).click()
    asked_once.keyboard.press("Escape")
    asked_once.mouse.move(5, 5)
    seen: list[str] = []
    noted = {
        "request": lambda r: seen.append(r.url) if "/queue/" in r.url or "/run/" in r.url else None,
        "pageerror": lambda e: seen.append(str(e)),
    }
    for event, note in noted.items():
        asked_once.on(event, note)
    yield asked_once
    for event, note in noted.items():
        asked_once.remove_listener(event, note)
    assert seen == []


def test_words_find_their_places_and_places_their_words(board):
    word, at = widest(board)
    words = filled(board)
    assert max(words, key=words.get) == word and len(set(words.values())) > 3
    everything = coloured(board)
    board.locator(".gate-word").nth(at).hover()
    assert told(board).startswith(f"“{word}”: the gate opens by 0.")
    alone = coloured(board)
    assert alone <= everything
    branch = max(held(board)["branches"], key=lambda b: b["rows"] * b["columns"])
    box = board.locator(".gate-picture").bounding_box()
    board.mouse.move(box["x"] + box["width"] * 1.5 / branch["columns"], box["y"] + box["height"] * 0.5 / branch["rows"])
    assert told(board).startswith(f"Row 1 of {branch['rows']}, column 2 of {branch['columns']}: ")
    met = [
        [
            o * m
            for o, m in zip(
                b["opening"],
                np.frombuffer(base64.b64decode(b["meeting"]), np.uint8).reshape(
                    len(b["opening"]), b["rows"], b["columns"]
                )[:, 0, int(1.5 / branch["columns"] * b["columns"])]
                / 255
                * b["largest"]
                * b["rows"]
                * b["columns"],
                strict=True,
            )
        ]
        for b in held(board)["branches"]
    ]
    most = held(board)["words"][int(np.mean(met, axis=0).argmax())]
    words = filled(board)
    assert max(words, key=words.get) == most and ("hardly anything" in told(board) or f"“{most}”" in told(board))
    board.mouse.move(5, 5)
    assert "Point at a word" in told(board) and coloured(board) == everything


def test_a_click_pins_and_lets_go(board):
    first, other = (board.locator(".gate-word", has_text=w) for w in ("nosegay", "face"))
    first.click()
    other.hover()
    assert "“nosegay”" in told(board) and first.get_attribute("aria-pressed") == "true"
    first.click()
    other.hover()
    assert "“face”" in told(board) and first.get_attribute("aria-pressed") == "false"
    first.click()
    board.keyboard.press("Escape")
    assert "Point at a word" in told(board)
    box = board.locator(".gate-picture").bounding_box()
    board.mouse.click(box["x"] + 5, box["y"] + 5)
    first.hover()
    assert "Row 1 of" in told(board) and "column 1 of" in told(board)


def test_keys_alone_reach_words_and_places(board):
    board.locator(".gate-word").first.focus()
    for _ in range(3):
        board.keyboard.press("ArrowRight")
    assert "“nosegay”" in told(board)
    board.keyboard.press("Enter")
    assert board.locator(".gate-word.chosen").inner_text() == "nosegay"
    board.keyboard.press("Escape")
    board.keyboard.press("Shift+Tab")
    assert board.evaluate("document.activeElement.className") == "gate-picture"
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        board.keyboard.press(key)
    assert re.match(r"Row 2 of \d+, column 3 of \d+: ", told(board))
    assert board.locator(".gate-told").get_attribute("aria-live") == "polite"


def test_the_switch_shows_both_answers(board):
    rows = [row.split("\t") for row in board.locator(".gate-answers").inner_text().splitlines()]
    answers = held(board)["answers"]
    shown = next(row for row in rows if row[0] == "probability of YES")
    assert [float(v) for v in shown[1:]] == [
        pytest.approx(answers[k]["probability"], abs=6e-4) for k in ("learned", "shut")
    ]
    everything = filled(board)
    assert grey(board)
    board.locator(".gate-switch").get_by_role("radio", name="shut").click()
    assert (
        not grey(board)
        and coloured(board) == 0
        and max(filled(board).values()) == 0
        and "without the picture" in told(board)
    )
    board.locator(".gate-switch").get_by_role("radio", name="as learned").click()
    assert filled(board) == everything


def test_each_branch_has_its_own_gate(board):
    seen = set()
    for name in ("all", *(b["label"] for b in held(board)["branches"])):
        board.locator(".gate-switch").get_by_role("radio", name=name, exact=True).click()
        board.locator(".gate-word", has_text="nosegay").hover()
        seen.add(told(board))
    assert len(seen) == 3


def test_a_touch_pins_on_a_narrow_page(browser, url, flower):
    context = new_context(
        browser, viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, locale="en-GB"
    )
    tab = context.new_page()
    opened(tab, f"{url}?__theme=dark", flower)
    tab.locator(".gate-word", has_text="nosegay").tap()
    assert "“nosegay”" in told(tab)
    tab.locator(".gate-picture").tap(position={"x": 10, "y": 10})
    assert "Row 1 of" in told(tab) and "column 1 of" in told(tab)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_published_gate_says_that_its_places_are_no_findings(browser, published_url, flower):
    """Of a branch that has places, and of one that has none."""
    tab, errors = new_tab(browser), []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    opened(tab, published_url, flower)
    assert "no finding of a thing" in tab.locator(".gate-note").inner_text()
    tab.locator(".gate-word", has_text="nosegay").hover()
    assert "the picture's share is 0." in told(tab) and "It looked most at row" in told(tab)
    tab.locator(".gate-picture").hover(position={"x": 5, "y": 5})
    assert "Row 1 of 5, column 1 of 4" in told(tab)
    tab.locator(".gate-switch").get_by_role("radio", name="ResNet").click()
    tab.locator(".gate-picture").hover(position={"x": 9, "y": 9})
    assert "no place in the picture" in told(tab) and coloured(tab) == 0 and not grey(tab)
    tab.locator(".gate-word", has_text="nosegay").hover()
    assert "the picture's share is 0." in told(tab) and "It looked" not in told(tab)
    assert errors == []
    tab.close()
