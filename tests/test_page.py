"""The page in a real browser: answer, explanations, errors, hostile text, no outside request."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

import app
from musti_model import ImageBranchConfig, MustiPipeline, MustiProcessor
from page.calls import calls_of, new_lanes
from page.parts.attention import Attention, view_choices
from page.parts.gate_effect import GateEffect
from page.parts.part import Latest, Question
from page.parts.vote import Vote
from page.parts.what_if import WhatIf
from page.parts.why import Why
from page.tabs.pair import PairTab
from page.tour import TOUR
from page.weights import weights_banner, weights_html
from tests.browser import answered, ask, new_tab, open_section, wait_for
from tests.conftest import GATES, tiny_config, tiny_model

PASSAGE = "She pressed the nosegay to her face; the roses filled the whole chamber with their scent."


def test_answer_gate_and_maps(page, flower, second_branch):
    ask(page, flower, PASSAGE)
    page.locator("#verdict h2").wait_for()
    assert "Probability of YES" in page.locator("#verdict").inner_text()
    assert (
        "text selection feature, TSF" in page.locator("#gate-title").inner_text()
    )  # spelled out where it first stands
    open_section(page, "vote")
    assert "logit (sum)" in page.locator("#votes").inner_text()
    open_section(page, "gate")
    words = page.locator("#gate .word")
    words.first.wait_for()
    assert "nosegay" in words.all_inner_texts()
    assert words.nth(1).get_attribute("data-note").startswith("change of the logit by the gate ")
    page.locator("#gate-map img").wait_for()
    before = page.locator("#gate").inner_text()
    page.locator("#branch").get_by_label(second_branch[1]).check()
    page.wait_for_function("old => document.querySelector('#gate').innerText !== old", arg=before)
    open_section(page, "attention")
    overlay = page.locator("#attention-map img")
    overlay.wait_for()
    first = overlay.get_attribute("src")
    choose(page, f"{second_branch[1]}: Grad-CAM")
    page.wait_for_function("old => document.querySelector('#attention-map img').src !== old", arg=first)
    page.locator("#words .word").first.wait_for()


def test_the_progress_of_an_event_is_told_at_one_place(pipe):
    """Gradio looks through the whole page for each place, at every message; only what fills in an example, which is
    Gradio's own, and what machines ask may have more."""
    events = [event for event in app.build(pipe).fns.values() if event.fn and event.api_visibility == "private"]
    places = {e.name: len(e.outputs if e.show_progress_on is None else e.show_progress_on) for e in events}
    assert {name for name, count in places.items() if count > 1} == {"load_example"} and places["answer"] == 1


@pytest.mark.starter(evidence=True)
def test_why(page, flower: Path):
    """Words and regions for and against, and how faithful they are."""
    ask(page, flower.with_name("candle.jpg"), "She blew out the candle, and the room went dark.")
    open_section(page, "why")
    word = page.locator("#evidence .word", has_text="candle")
    word.wait_for()
    assert float(word.get_attribute("data-note").split()[-1]) > 0.3  # the word that names what the picture shows
    page.locator("#evidence-map img").wait_for()
    for place in ("#faithful-evidence", "#faithful-evidence-map"):  # one word, and the numbers one step further
        page.locator(f"{place} summary").wait_for()
        assert not page.locator(f"{place} details p").is_visible()
        page.locator(f"{place} summary").click()
        assert "in random order it is" in page.locator(f"{place} details p").inner_text()
    measured = json.loads((Path(__file__).parents[1] / "assets" / "faithfulness" / "faithfulness.json").read_text())
    told = f"Measured on {measured['pairs']} other pairs that were answered YES rightly"
    assert told in page.locator("#score").inner_text()


def test_each_map_says_how_faithful_it_is(page, flower, second_branch):
    ask(page, flower, PASSAGE)
    answered(page)
    for section, places in (
        ("why", ("#faithful-evidence", "#faithful-evidence-map")),
        ("gate", ("#faithful-gate",)),
        ("attention", ("#faithful-map", "#faithful-words")),
    ):
        open_section(page, section)
        for place in places:
            page.locator(f"{place} summary").wait_for()
            assert "in random order it is" in page.locator(f"{place} details p").text_content()
    told = "place => document.querySelector(place).textContent"
    whole, rollout = (page.evaluate(told, place) for place in ("#faithful-evidence-map", "#faithful-map"))
    changed = "([place, old]) => document.querySelector(place).textContent !== old"
    page.locator("#part").get_by_label(second_branch[1]).check()
    page.wait_for_function(changed, arg=["#faithful-evidence-map", whole])
    choose(page, f"{second_branch[1]}: Grad-CAM")
    page.wait_for_function(changed, arg=["#faithful-map", rollout])
    choose(page, "ViT: one head, last layer")
    page.locator("#faithful-map summary").wait_for(state="detached")  # single heads are not measured


@pytest.mark.starter(evidence=True)
def test_why_not(page, flower):
    ask(page, flower, "The horse had been ridden hard and smelled of sweat and leather.")
    open_section(page, "why")
    page.locator("#evidence .missing").wait_for()
    assert "Why NO?" in page.locator("#evidence").inner_text()


@pytest.mark.starter
def test_what_if(page, flower):
    """By mouse, keyboard and drawing; and everything put back."""
    ask(page, flower, PASSAGE)
    answered(page)
    open_section(page, "what-if")
    roses = page.locator("#board .strike", has_text="roses")
    roses.click()
    table = page.locator("#altered table")
    table.wait_for()
    assert roses.get_attribute("aria-pressed") == "true"
    old, new = (float(page.locator("#altered strong").nth(i).inner_text()) for i in (0, 1))
    assert new < old
    assert page.evaluate("document.activeElement.innerText") == "roses"  # the focus outlives the redrawing
    page.keyboard.press("Enter")
    table.wait_for(state="detached")
    cells = page.locator("#board .cells")
    box = cells.bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 5, steps=16)
    page.mouse.up()
    table.wait_for()
    assert cells.locator(".off").count() == 8
    page.get_by_role("button", name="Put everything back").click()
    table.wait_for(state="detached")
    assert page.locator("#board .off").count() == 0
    page.locator("#voting input").first.uncheck()
    table.wait_for()
    page.locator("#voting input").last.uncheck()
    page.get_by_text("At least one branch has to vote").wait_for()


def test_an_example_answers_at_once(page):
    page.get_by_text("Voici venir les temps").first.click()
    page.locator("#verdict h2").wait_for()
    assert "encensoir" in page.locator("#passage textarea").input_value()


@pytest.mark.starter
def test_switching_views_does_not_run_the_model(page, flower, monkeypatch):
    ask(page, flower, PASSAGE)
    answered(page)
    from musti_model import MustiModel

    def refuse(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(MustiModel, "forward", refuse)
    monkeypatch.setattr(MustiModel, "match", refuse)
    for section, place, control in (("why", "evidence", "part"), ("gate", "gate", "branch")):
        open_section(page, section)
        before = page.locator(f"#{place} .word").nth(1).get_attribute("data-note")
        page.locator(f"#{control} input").last.check()  # the second branch
        page.wait_for_function(
            f"old => document.querySelectorAll('#{place} .word')[1].dataset.note !== old", arg=before
        )
    open_section(page, "attention")
    changed(page, lambda: choose(page, "ViT: one head, last layer"))
    changed(page, lambda: press(page, "#head", "ArrowRight", 2))  # sliders by keyboard alone
    changed(page, lambda: press(page, "#opacity-attention", "ArrowRight", 4))
    changed(page, lambda: page.get_by_label("Stretch colours").check())
    assert "head 3" in page.locator("#section-attention .legend").first.inner_text()


def choose(page, name: str) -> None:
    page.get_by_label("Map", exact=True).first.click()
    page.get_by_role("option", name=name).click()


def press(page, place: str, key: str, times: int) -> None:
    page.locator(f"{place} input[type=range]").focus()
    for _ in range(times):
        page.keyboard.press(key)


def changed(page, act) -> None:
    """Does something and waits until the overlay is another picture."""
    page.locator("#attention-map img").wait_for()
    before = page.locator("#attention-map img").get_attribute("src")
    act()
    page.wait_for_function("old => document.querySelector('#attention-map img').src !== old", arg=before)


def pair_of(pipe: MustiPipeline) -> PairTab:
    """The tab alone."""
    with gr.Blocks() as demo:
        return PairTab(
            calls_of(pipe, lambda function: function, new_lanes()),
            [(e.path, e.passage) for e in app.EXAMPLES],
            None,
            demo,
        )


def test_a_message_that_was_overtaken_takes_no_answer_away(pipe, flower):
    """Every key sends one; one sent before the question was asked may arrive after its answer."""
    pair = pair_of(pipe)
    question = Question(str(flower), PASSAGE, 1000.0, False, "its verdict")

    latest = Latest()
    latest.asked = 1000.0

    def forgotten(*given) -> bool:
        return pair.settle(latest, *given) == {pair.verdict.html: pair.verdict.waiting()}

    assert not forgotten(question, str(flower), PASSAGE[:-1], 999.0)
    kept = pair.settle(latest, question, str(flower), PASSAGE, 1000.5)  # given back, should one have taken it away
    assert kept == {pair.verdict.html: "its verdict"}
    assert forgotten(question, str(flower), PASSAGE[:-1], 1001.0) and forgotten(question, None, PASSAGE, 1001.0)
    overtaken = pair.settle(latest, question, str(flower), PASSAGE, 1000.9)  # sent while its passage stood there
    assert overtaken == gr.skip()
    assert not forgotten(None, str(flower), PASSAGE, 1001.0)  # it may have left before the question was asked
    latest.asked = 1002.0  # the next question is being answered
    assert not forgotten(question, str(flower), PASSAGE[:-1], 1001.0)


def test_an_answer_does_not_outlive_its_question(page, flower):
    ask(page, flower, PASSAGE)
    page.locator(".gate-word").first.wait_for()
    page.get_by_label("Passage").fill("Another passage, of herrings.")
    page.get_by_text("Press “Compare”").wait_for()
    assert page.locator("#verdict h2").count() == 0 and not page.locator("#below").is_visible()
    page.get_by_label("Passage").fill(PASSAGE)  # put back: all that was told of it stands again
    page.locator("#verdict h2").wait_for()
    page.locator(".gate-word", has_text="nosegay").wait_for()


@pytest.mark.parametrize("step", ["__call__", "explain", "faithfulness"])
def test_a_late_answer_does_not_stand_beside_another_question(page, flower, slowly, step):
    """The passage changes while the model is at work."""
    ask(page, flower, PASSAGE)
    answered(page)
    for section in ("why", "what-if", "vote"):  # views are built when they are opened
        open_section(page, section)
    page.locator("#faithful-evidence summary").wait_for()
    slow = slowly(step)
    page.get_by_label("Passage").fill(f"A rose, {step}.")  # that nobody asked before
    page.get_by_role("button", name="Compare", exact=True).click()
    wait_for(page, slow.begun)
    page.get_by_label("Passage").fill("A stinking herring lay on the quay.")
    wait_for(page, slow.ended)
    page.wait_for_timeout(1000)
    page.get_by_text("Press “Compare”").first.wait_for()
    assert page.locator("#verdict h2").count() == 0
    for place in ("#votes table", "#evidence .word", ".faithful summary", "#board .strike", ".gate-word"):
        assert page.locator(place).filter(visible=True).count() == 0


def test_what_is_late_about_one_question_is_never_drawn_for_the_next(page, flower, slowly):
    """Another question is asked while the explanation of the first is being made."""
    slowly("explain")
    ask(page, flower, "A stinking herring lay on the quay.")
    page.locator(".gate-word").first.wait_for()
    page.wait_for_timeout(300)  # the board is drawn, the explanation is being made
    page.evaluate("""() => {
      window.boards = [];  // whose board is drawn, whenever that changes
      setInterval(() => {
        const words = [...document.querySelectorAll(".gate-word")].map((w) => w.innerText);
        const drawn = ["herring", "roses"].filter((w) => words.includes(w)).join();
        if (window.boards.at(-1) !== drawn) window.boards.push(drawn);
      }, 20);
    }""")
    page.get_by_label("Passage").fill(PASSAGE)
    page.get_by_text("Press “Compare”").first.wait_for()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.locator("#verdict h2").wait_for()
    answered(page)
    page.wait_for_timeout(1500)
    assert [drawn for drawn in page.evaluate("window.boards") if drawn] == ["herring", "roses"]
    open_section(page, "what-if")  # and the explanation of the second is made, once the first is through
    page.locator("#board .strike", has_text="roses").wait_for()


def test_a_picture_as_thin_as_a_thread(page, tmp_path):
    path = tmp_path / "thread.png"
    Image.new("RGB", (1, 3000), "red").save(path)
    ask(page, path, PASSAGE)
    page.locator("#verdict h2").wait_for()
    board = page.locator(".gate-picture")
    board.wait_for()
    seen = board.bounding_box()
    assert seen["width"] >= 24 and seen["height"] <= 0.71 * page.viewport_size["height"]


def test_an_unforeseen_error_reads_as_one_sentence(page, flower, monkeypatch):
    monkeypatch.setattr(MustiPipeline, "explain", lambda *_: 1 / 0)
    ask(page, flower, PASSAGE)
    page.get_by_text("This pair could not be answered").wait_for()
    page.locator("#told").get_by_text("could not be made").wait_for()  # and nothing seems to be on its way for ever
    assert page.locator("#verdict h2").count() == 1


def test_text_of_users_is_never_code(page, flower):
    ask(
        page,
        flower,
        "A rose ${window.hit=1} {{window.hit=2}} <img src=x onerror='window.hit=3'> `x` smelled <b>sweet</b>.",
    )
    page.locator("#verdict h2").wait_for()
    for section, place in (("why", "#evidence"), ("gate", "#gate"), ("attention", "#words")):
        open_section(page, section)
        page.locator(f"{place} .word").first.wait_for()
    open_section(page, "what-if")
    page.locator("#board .strike").first.wait_for()
    assert "onerror" in page.locator("#board").inner_text() and "onerror" in page.locator(".gate-passage").inner_text()
    assert page.evaluate("window.hit") is None
    assert "onerror" in page.locator("#words").inner_text()


def test_bad_input_reads_as_one_sentence(page, flower, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"this is no picture")
    remove = page.locator("#picture").get_by_label("Remove Image")
    for file, passage, sentence in (
        (None, PASSAGE, "Choose a picture"),
        (broken, PASSAGE, "not a picture we can read"),
        (flower, "", "The passage is empty"),
        (None, "?!", "no words"),  # beside the picture before
    ):
        if file:
            if remove.count():
                remove.click()
            page.locator("#picture input[type=file]").set_input_files(str(file))
            remove.wait_for()
        page.get_by_label("Passage").fill(passage)
        page.get_by_role("button", name="Compare", exact=True).click()
        told = page.locator("#verdict .notice", has_text=sentence)
        told.wait_for()
        text = told.inner_text()
        assert "Traceback" not in text and "/" not in text.replace("and/or", "")


@pytest.mark.starter
def test_an_unknown_smell_is_not_a_confident_no(page, flower):
    ask(page, flower, "Chapter the second, in which nothing at all is decided and everything is postponed.")
    page.locator("#verdict .notice").first.wait_for()
    assert "Cannot tell" in page.locator("#verdict h2").inner_text()


@pytest.fixture
def narrow(browser, url):
    """A tab as wide as a telephone."""
    tab = new_tab(browser, viewport={"width": 390, "height": 844})
    tab.goto(url)
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    yield tab
    tab.close()


def test_on_a_telephone_the_answer_follows_the_question(narrow, flower):
    """Within one thumb's scroll of the button, and the examples after it; and nothing scrolls sideways."""
    ask(narrow, flower, PASSAGE)
    narrow.locator("#verdict h2").wait_for()
    # nobody has to look for it
    narrow.wait_for_function("() => document.querySelector('#verdict').getBoundingClientRect().top < innerHeight")
    answered(narrow)
    button, verdict, examples = (narrow.locator(p).bounding_box() for p in ("#run", "#verdict h2", "#below-question"))
    assert 0 < verdict["y"] - button["y"] < 844 / 2 and examples["y"] > verdict["y"]
    for tab in ("One pair", "Compare many", "Batch", "About"):  # no view stands behind "…"
        assert narrow.get_by_role("tab", name=tab, exact=True).is_visible()
    assert not narrow.locator(".overflow-menu").is_visible()
    for name in SECTIONS:
        narrow.locator(f"#section-{name} > button").scroll_into_view_if_needed()
        assert narrow.locator(f"#section-{name} > button").is_visible()
        open_section(narrow, name)
    assert narrow.evaluate("document.documentElement.scrollWidth") <= 390


ABOUT = {kind.name: kind.about for kind in (Why, WhatIf, GateEffect, Attention, Vote)}
SECTIONS = tuple(ABOUT)


def test_nothing_stands_below_the_answer_before_there_is_one(page):
    """And what will stand there is announced."""
    page.wait_for_function("() => document.querySelector('#verdict').getAttribute('aria-live') === 'polite'")
    assert page.locator("#below-question [data-testid=dataset], #below-question table").first.is_visible()
    for place in ("#gate-board", "#make-link", "#pack", "#show-around", *(f"#section-{name}" for name in SECTIONS)):
        assert not page.locator(place).is_visible(), place


@pytest.mark.starter
def test_the_first_screen_is_for_people(page):
    page.locator("#weights").wait_for()
    first = page.locator("body").inner_text()
    assert (
        not any(word in first for word in ("sha256", "logit", "proxy pairs", "TSF"))
        and "not the published MUSTI model" in first
    )
    page.locator("#weights a").click()
    page.locator("#weights-told").wait_for()
    assert "sha256:" in page.locator("#weights-told").inner_text()
    page.wait_for_function("() => document.querySelector('#card-title').getBoundingClientRect().top < innerHeight")


def test_sections_are_closed_until_they_are_opened(page, flower):
    """By click and by key; and each says what it depends on."""
    ask(page, flower, PASSAGE)
    answered(page)
    for name in SECTIONS:
        button = page.locator(f"#section-{name} > button")
        assert (
            button.get_attribute("aria-expanded") == "false"
            and not page.locator(f"#section-{name} .prose").first.is_visible()
        )
        if name == "why":
            button.click()
        else:
            button.focus()
            page.keyboard.press("Enter")
        page.locator(f"#section-{name} .prose").first.wait_for()
        assert page.locator(f"#section-{name} .prose").first.inner_text().strip() == ABOUT[name]
        page.wait_for_function(
            "name => document.querySelector(`#section-${name} > button`).ariaExpanded === 'true'", arg=name
        )
    page.locator("#section-why > button").click()
    page.locator("#evidence").wait_for(state="hidden")


def test_a_map_can_be_enlarged(page, flower):
    ask(page, flower, PASSAGE)
    open_section(page, "why")
    image = page.locator("#evidence-map img")
    image.wait_for()
    small = image.bounding_box()
    page.locator("#evidence-map").get_by_role("button", name="Fullscreen").click()
    page.wait_for_function(
        "width => document.querySelector('#evidence-map img').getBoundingClientRect().width > 1.5 * width",
        arg=small["width"],
    )
    page.keyboard.press("Escape")
    page.wait_for_function(
        "width => document.querySelector('#evidence-map img').getBoundingClientRect().width < 1.1 * width",
        arg=small["width"],
    )


def test_keyboard_alone_reaches_words(page, flower):
    page.locator("#picture input[type=file]").set_input_files(str(flower))
    page.locator("#picture img").first.wait_for()
    page.get_by_label("Passage").focus()
    page.keyboard.type(PASSAGE)
    tab_to(page, "document.activeElement.id === 'run'")
    page.keyboard.press("Enter")
    page.locator("#verdict h2").wait_for()
    page.locator(".gate-word").first.wait_for()
    tab_to(page, "document.activeElement.classList.contains('gate-word')")
    page.keyboard.press("End")
    assert "“.”" in page.locator(".gate-told").inner_text()
    tab_to(page, "document.activeElement.closest('#section-why') !== null")
    page.keyboard.press("Enter")
    page.locator("#evidence .word").first.wait_for()
    tab_to(page, "document.activeElement.className === 'word'")
    note = "getComputedStyle(document.activeElement, '::after').content"
    assert page.evaluate(note).startswith('"logit for (+) or against')


def tab_to(page, condition: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(condition):
            return
    raise AssertionError(f"The Tab key never reached {condition}.")


def test_weights_that_cannot_be_had_are_named_on_the_page(monkeypatch, tmp_path):
    import app

    monkeypatch.setenv("MUSTI_MODEL", str(tmp_path / "gone"))
    pipe, problem = app.load_pipeline()
    banner = weights_banner(pipe, problem)
    assert 'role="alert"' in banner and "gone" in banner and "embedded starter weights instead" in banner
    monkeypatch.setattr(pipe, "card", {"test": {"f1_macro": "<script>", "pairs": 3}, "caveat": "<script>"})
    told = weights_html(pipe)
    assert "<script>" not in told and "No measured score" in told


RESNET, SWIN = (
    tiny_config().branches[1],
    ImageBranchConfig(
        "swin",
        "swin_tiny_patch4_window7_224",
        {"img_size": 56, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 7},
        image_size=56,
    ),
)


@pytest.mark.parametrize(
    "changes",
    [
        {"gate": "none"},
        GATES["word"],
        GATES["linear by place"],
        {"branches": (RESNET,)},
        {"branches": (SWIN,)},
        {"branches": (replace(RESNET, axes="published"),)},
        {"objects": ()},
    ],
)
def test_every_kind_of_model_has_a_page(changes, tokenizer, flower):
    model = tiny_model(**changes)
    pipe = MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu")
    assert app.build(pipe)
    name, kinds = model.config.branches[0].name, [v for _, v in view_choices(pipe)]
    pair = pair_of(pipe)
    why, effect, attention, what_if = pair.why, pair.effect, pair.attention, pair.what_if
    latest = Latest()
    values = pair.answer(latest, str(flower), PASSAGE, 5.0)
    question, verdict = values[pair.held.question], values[pair.verdict.html]
    assert "Probability of YES" in verdict and question == (
        str(flower),
        PASSAGE,
        5.0,
        False,
        verdict,
    )
    explanation = pair.run(latest, question, *question[:2])[pair.held.explanation]
    given = {c: c.value for c in pair.controls} | {
        pair.held.explanation: explanation,
        pair.held.measured: None,
        pair.held.question: question,
    }
    drawn = pair.redraw(given)
    assert set(drawn) <= set(pair.views) and set(pair.blank()) == set(pair.explained)
    assert (
        "roses" in drawn[attention.words]
        and "roses" in drawn[why.evidence]
        and drawn[why.map.image]["visible"]
        and drawn[what_if.board]["words"]
    )
    given[pair.held.measured] = told = pair.measure(question, explanation, None)[pair.held.measured]
    measured = told.by_name
    # of the question before, and late
    assert pair.judge(given | {pair.held.measured: told._replace(asked="another")}) == gr.skip()
    judged = pair.judge(given)
    assert "details" in judged[why.faithful_words] and bool(judged[attention.faithful_map]) == (
        f"{kinds[0]}" in measured if kinds else False
    )
    assert "details" in judged[attention.faithful_words] and bool(judged[effect.faithful]) == (
        f"effect:{name}" in measured
    )
    told = drawn[pair.board.board]["told"]
    assert ("no gate" in drawn[effect.effect]) == ("no gate" in told) == (model.config.gate == "none")
    picture = drawn[attention.map.image]
    assert (picture["value"] is not None) == picture["visible"] == bool(kinds) and (
        "no such map" in drawn[attention.map.legend]
    ) == (not kinds)
    has_places = model.config.gate != "none" and model.config.branches[0].axes == "natural"
    assert drawn[effect.map.image]["visible"] == has_places and (
        "Opening the gate changes the vote" in drawn[effect.effect]
    ) == (model.config.gate != "none")
    if model.config.gate != "none":
        shown = json.loads(drawn[pair.board.board]["board"])
        assert shown["places"] == has_places and ("three numbers" in shown["texts"]["note"]) == (
            model.config.gate == "scalar"
        )
    if model.config.gate in ("word", "linear"):
        switches = {what_if.board: drawn[what_if.board], what_if.voting: what_if.names}
        states = [
            what_if.alter(given | switches | {what_if.gate_state: state}) for state in ("learned", "shut", "open")
        ]
        assert len(set(states)) == 3 and "as it is" not in states[0]


def test_take_away(page, flower, tmp_path):
    ask(page, flower, PASSAGE)
    answered(page)
    page.locator("#pack").click()
    link = page.locator("#bundle a").first
    link.wait_for()
    with page.expect_download() as download:
        link.click()
    download.value.save_as(tmp_path / "e.zip")
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        names = archive.namelist()
        manifest = json.loads(archive.read("explanation/manifest.json"))
        faithful = json.loads(archive.read("explanation/faithfulness.json"))
    assert {"explanation/picture.png", "explanation/evidence.npy", "explanation/README.txt"} <= set(names)
    assert 0 <= faithful["regions"]["deletion"] <= 1 and "rollout:vit" in faithful
    assert manifest["passage"] == PASSAGE and manifest["settings"]["revision"].startswith("sha256:")


def test_nothing_to_take_away_yet(pipe):
    pair = pair_of(pipe)
    with pytest.raises(gr.Error, match="There is nothing to take away yet"):
        pair.keeping.pack_up({pair.held.explanation: None, pair.held.measured: None})


@pytest.mark.starter
def test_about(page):
    page.get_by_role("tab", name="About").click()
    page.get_by_role("heading", name="How to read this page").wait_for()
    text = page.locator("#card").inner_text()
    assert "not the published MUSTI model" in text and "held out" in text and "license:" not in text


def draw(page, first: int, last: int) -> None:
    """Over the rows of the board, from the first to the last."""
    box = page.locator("#board .cells").bounding_box()
    for row in range(first, last + 1):
        y = box["y"] + box["height"] * (row + 0.5) / 8
        page.mouse.move(box["x"] + 5, y) if row == first else page.mouse.move(
            box["x"] + (5 if row % 2 == 0 else box["width"] - 5), y, steps=2
        )
        if row == first:
            page.mouse.down()
        page.mouse.move(box["x"] + (box["width"] - 5 if row % 2 == 0 else 5), y, steps=16)
    page.mouse.up()


IN_SIGHT = """place => {
  const at = document.querySelector(place)?.getBoundingClientRect(), panel = document.querySelector('#tour');
  return at && at.height > 0 && at.top >= 0 && at.bottom <= panel.getBoundingClientRect().top;
}"""


def next_step(page, step: int) -> str:
    """Goes there; -> its headline, when the answer and the board of its example are there."""
    old = "() => document.querySelectorAll('#verdict .verdict, .gate-word').forEach((e) => { e.dataset.old = 'yes'; })"
    page.evaluate(old)
    page.locator("#show-around" if step == 1 else "#tour-next").click()
    page.locator("#tour-text").get_by_text(f"Step {step} of 5").wait_for()
    assert page.locator("#passage textarea").input_value() == app.EXAMPLES[TOUR[step - 1].example].passage
    if step == 1 or TOUR[step - 1].example != TOUR[step - 2].example:
        page.locator("#verdict .verdict:not([data-old])").wait_for()
        page.locator(".gate-word:not([data-old])").first.wait_for()
    return page.locator("#verdict h2").inner_text()


@pytest.mark.starter
def test_guided_tour(page):
    """What each step speaks of is in sight above its text, on a telephone too, and what it says is so."""
    page.set_viewport_size({"width": 390, "height": 844})
    page.get_by_text("Voici venir les temps").first.click()
    page.locator("#verdict h2").wait_for()
    rose: dict[int, float] = {}  # how full the word's colour is at a step
    for step in range(1, len(TOUR) + 1):
        headline = next_step(page, step)
        opened = [n for n in SECTIONS if page.locator(f"#section-{n} > button.open").count()]
        assert opened == (["what-if"] if step == 4 else [])
        places = ["#altered", "#board .strike:nth-of-type(1)"] if step == 4 else ["#verdict h2", ".gate-passage"]
        for place in places:
            page.wait_for_function(IN_SIGHT, arg=place)
        if step == 1:
            page.evaluate("scrollTo(0, 0)")
        if step == 1:  # who scrolled on is not taken away when the explanations are there
            answered(page)
            page.wait_for_timeout(300)
            assert page.evaluate("scrollY") == 0
        if step == 2:
            page.locator("#gate-board p").get_by_text("The gate stayed nearly shut").wait_for()
        if step in (1, 2):  # the same words beside two pictures
            widest = page.evaluate(
                "[...document.querySelectorAll('.gate-word')].map(w => "
                "[+(w.style.backgroundColor.match(/[0-9.]+(?=\\))/) || [0])[0], w.innerText]).sort((a, b) => b[0] "
                "- a[0])"
            )
            rose[step] = {word: full for full, word in widest[::-1]}["rose"]
        if step == 1:
            assert headline.startswith("YES") and rose[1] == widest[0][0] > 4 * widest[1][0], widest
        if step == 2:
            assert headline == "NO: I see “person” in the picture; the passage speaks of “flower”."
            assert rose[2] < 0.1 * 0.7
        if step == 3:
            learned, shut = (
                page.locator(f".gate-answers tr:nth-child(2) td[data-of={state}]").inner_text()
                for state in ("learned", "shut")
            )
            assert headline.startswith("YES") and (learned, shut) == ("YES", "NO")
            assert page.evaluate(IN_SIGHT, "[data-gate=shut]")
            page.locator(".gate-switch").get_by_role("radio", name="shut").click()
            assert "without the picture" in page.locator(".gate-told").inner_text()
        if step == 4:
            page.locator("#board .strike", has_text="Haus").evaluate("e => e.id = 'haus'")
            assert page.evaluate(IN_SIGHT, "#haus")
            page.locator("#haus").click()
            page.locator("#altered").get_by_text("That turns the answer").wait_for()
        if step == 5:
            assert headline.startswith("Cannot tell") and page.locator("#tour-next").is_disabled()


def test_the_tour_goes_back_and_ends(page, flower):
    """It follows the language of the page; and what stood there before it is back, and is asked."""
    ask(page, flower, PASSAGE)
    page.locator("#verdict h2").wait_for()
    before = page.locator("#picture img").first.get_attribute("src")
    for again in (False, True):  # begun again while it is under way
        page.get_by_role("tab", name="About").click()
        page.locator("#tour-from-here").click()
        page.locator("#tour-text").get_by_text("Step 1 of 5").wait_for()
        assert page.locator("#tour-back").is_disabled() and page.locator("#passage").is_visible()
        if not again:
            page.locator("nav.languages").get_by_role("link", name="Deutsch").click()
            page.locator("#tour-text").get_by_text("Schritt 1 von 5").wait_for()
            page.locator("nav.languages").get_by_role("link", name="English").click()
            page.locator("#tour-text").get_by_text("Step 1 of 5").wait_for()
        page.locator("#tour-next").click()
        page.locator("#tour-text").get_by_text("Step 2 of 5").wait_for()
    for place in ("#verdict h2", ".gate-passage"):
        page.wait_for_function(IN_SIGHT, arg=place)
    page.locator("#tour-back").click()
    page.locator("#tour-text").get_by_text("Step 1 of 5").wait_for()
    assert page.locator("#passage textarea").input_value() == app.EXAMPLES[TOUR[0].example].passage
    page.locator("#tour-end").click()
    page.locator("#tour").wait_for(state="hidden")
    assert page.locator("#passage textarea").input_value() == PASSAGE
    page.wait_for_function("src => document.querySelector('#picture img').src.endsWith(src)", arg=Path(before).name)
    page.locator("#verdict h2").wait_for()
    page.locator(".gate-word", has_text="nosegay").wait_for()


def test_the_tour_of_a_visitor_who_had_nothing_leaves_its_example(page):
    page.get_by_role("tab", name="About").click()
    page.locator("#tour-from-here").click()
    page.locator("#verdict h2").wait_for()
    page.locator("#tour-end").click()
    page.locator("#tour").wait_for(state="hidden")
    assert page.locator("#passage textarea").input_value() == app.EXAMPLES[TOUR[0].example].passage
    assert page.locator("#verdict h2").is_visible()


def test_every_example_is_answered_rightly():
    pipe = MustiPipeline.from_pretrained()
    for example in app.EXAMPLES:
        answer = pipe(example.path, example.passage)
        assert ("cannot tell" if answer.unsure else answer.label) == example.answer, example.source
