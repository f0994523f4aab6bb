"""The page in a real browser: answer, explanations, errors, hostile text, no outside request."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

import app
from musti_model import ImageBranchConfig, MustiPipeline, MustiProcessor
from page import views
from tests.browser import ask, wait_for
from tests.conftest import GATES, tiny_config, tiny_model

PASSAGE = "She pressed the nosegay to her face; the roses filled the whole chamber with their scent."


def test_answer_gate_and_overlays(page, flower, tmp_path):
    ask(page, flower, PASSAGE)
    page.locator("#verdict h2").wait_for()
    assert "Probability of YES" in page.locator("#verdict").inner_text()
    page.get_by_role("tab", name="Vote").click()
    assert "logit (sum)" in page.locator("#votes").inner_text()
    assert "sha256:" in page.locator("#weights").inner_text()
    page.get_by_role("tab", name="Gate effect").click()
    words = page.locator("#gate .word")
    words.first.wait_for()
    assert "nosegay" in words.all_inner_texts()
    assert words.nth(1).get_attribute("data-note").startswith("change of the logit by the gate ")
    page.locator("#gate-map img").wait_for()
    before = page.locator("#gate").inner_text()
    page.locator("#branch").get_by_label("ResNet").check()
    page.wait_for_function("old => document.querySelector('#gate').innerText !== old", arg=before)
    page.get_by_role("tab", name="Overlays").click()
    overlay = page.locator("#attention-map img")
    overlay.wait_for()
    first = overlay.get_attribute("src")
    page.get_by_label("Overlay", exact=True).first.click()
    page.get_by_role("option", name="ResNet: Grad-CAM").click()
    page.wait_for_function("old => document.querySelector('#attention-map img').src !== old", arg=first)
    page.get_by_role("tab", name="Words").click()
    page.locator("#words .word").first.wait_for()


def test_why(page, flower: Path):
    """Words and regions for and against, and how faithful they are."""
    ask(page, flower.with_name("candle.jpg"), "She blew out the candle, and the room went dark.")
    word = page.locator("#evidence .word", has_text="candle")
    word.wait_for()
    assert float(word.get_attribute("data-note").split()[-1]) > 0.3  # the word that names what the picture shows
    page.locator("#evidence-map img").wait_for()
    page.locator("#faithful li").nth(1).wait_for()
    assert "in random order it is" in page.locator("#faithful").inner_text()
    assert "Measured on 60 other pairs" in page.locator("#score").inner_text()


def test_each_overlay_says_how_faithful_it_is(page, flower):
    ask(page, flower, PASSAGE)
    page.locator("#faithful li").nth(1).wait_for()
    whole = page.locator("#faithful").inner_text()
    page.locator("#part").get_by_label("ResNet").check()
    page.wait_for_function("old => document.querySelector('#faithful').innerText !== old", arg=whole)
    for tab, place in (("Gate effect", "#faithful-gate"), ("Overlays", "#faithful-map"), ("Words", "#faithful-words")):
        page.get_by_role("tab", name=tab, exact=True).click()
        assert "in random order it is" in page.locator(f"{place} li").inner_text()
    page.get_by_role("tab", name="Overlays").click()
    rollout = page.locator("#faithful-map").inner_text()
    choose(page, "ResNet: Grad-CAM")
    page.wait_for_function("old => document.querySelector('#faithful-map').innerText !== old", arg=rollout)
    choose(page, "ViT: one head, last layer")
    page.locator("#faithful-map li").wait_for(state="detached")  # single heads are not measured


def test_why_not(page, flower):
    ask(page, flower, "The horse had been ridden hard and smelled of sweat and leather.")
    page.locator("#evidence .missing").wait_for()
    assert "Why NO?" in page.locator("#evidence").inner_text()


def test_what_if(page, flower):
    """By mouse, keyboard and drawing; and everything put back."""
    ask(page, flower, PASSAGE)
    page.locator("#faithful li").first.wait_for()
    page.get_by_role("tab", name="What if").click()
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
    page.locator("#voting").get_by_label("ViT").uncheck()
    table.wait_for()
    page.locator("#voting").get_by_label("ResNet").uncheck()
    page.get_by_text("At least one branch has to vote").wait_for()


def test_an_example_answers_at_once(page):
    page.get_by_text("Dans l'océan de ta chevelure").first.click()
    page.locator("#verdict h2").wait_for()
    assert "navires" in page.locator("#passage textarea").input_value()


def test_switching_views_does_not_run_the_model(page, flower, monkeypatch):
    ask(page, flower, PASSAGE)
    page.locator("#faithful li").first.wait_for()
    from musti_model import MustiModel

    def refuse(*_args, **_kwargs):
        raise AssertionError("the model ran")

    monkeypatch.setattr(MustiModel, "forward", refuse)
    monkeypatch.setattr(MustiModel, "match", refuse)
    for tab, place in (("Why", "evidence"), ("Gate effect", "gate")):
        page.get_by_role("tab", name=tab).click()
        before = page.locator(f"#{place} .word").nth(1).get_attribute("data-note")
        page.locator(f"#{'part' if tab == 'Why' else 'branch'}").get_by_label("ResNet").check()
        page.wait_for_function(f"old => document.querySelectorAll('#{place} .word')[1].dataset.note !== old", arg=before)
    page.get_by_role("tab", name="Overlays").click()
    changed(page, lambda: choose(page, "ViT: one head, last layer"))
    changed(page, lambda: press(page, "#head", "ArrowRight", 2))  # sliders by keyboard alone
    changed(page, lambda: press(page, "#opacity", "ArrowRight", 4))
    changed(page, lambda: page.get_by_label("Stretch colours").check())
    assert "head 3" in page.locator(".legend:visible").inner_text()


def choose(page, name: str) -> None:
    page.get_by_label("Overlay", exact=True).first.click()
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


def test_a_message_that_was_overtaken_takes_no_answer_away(pipe, flower):
    """Every key sends one; one sent before the question was asked may arrive after its answer."""
    from page.pair import Question

    settle = next(f.fn for f in app.build(pipe).fns.values() if f.name == "settle")
    question = Question(str(flower), PASSAGE, 1000.0, False, "its verdict", "its votes")

    def forgotten(*given) -> bool:
        return settle(*given)[0] is None

    assert settle(question, str(flower), PASSAGE, 2000.0)[1:3] == ("its verdict", "its votes")  # given back, should one have taken it away
    assert not forgotten(question, str(flower), PASSAGE[:-1], 999.0)
    assert forgotten(question, str(flower), PASSAGE[:-1], 1001.0) and forgotten(question, None, PASSAGE, 1001.0)
    assert not forgotten(None, str(flower), PASSAGE, 1001.0)  # it may have left before the question was asked


def test_an_answer_does_not_outlive_its_question(page, flower):
    ask(page, flower, PASSAGE)
    page.locator("#verdict h2").wait_for()
    page.get_by_label("Passage").fill("Another passage, of herrings.")
    page.get_by_text("Press “Compare”").wait_for()
    assert page.locator("#verdict h2").count() == 0 and page.locator("#votes table").count() == 0


@pytest.mark.parametrize("step", ["predict", "explain", "faithfulness"])
def test_a_late_answer_does_not_stand_beside_another_question(page, flower, slowly, step):
    """The passage changes while the model is at work."""
    begun = slowly(step)
    ask(page, flower, PASSAGE)
    wait_for(page, begun)
    page.get_by_label("Passage").fill("A stinking herring lay on the quay.")
    page.wait_for_timeout(4000)
    page.get_by_text("Press “Compare”").first.wait_for()
    for place in ("#verdict h2", "#votes table", "#evidence .word", "#faithful li", "#board .strike"):
        assert page.locator(place).count() == 0


def test_a_picture_as_thin_as_a_thread(page, tmp_path):
    path = tmp_path / "thread.png"
    Image.new("RGB", (1, 3000), "red").save(path)
    ask(page, path, PASSAGE)
    page.locator("#verdict h2").wait_for()


def test_an_unforeseen_error_reads_as_one_sentence(page, flower, monkeypatch):
    monkeypatch.setattr(MustiPipeline, "explain", lambda *_: 1 / 0)
    ask(page, flower, PASSAGE)
    page.get_by_text("This pair could not be answered").wait_for()
    page.locator("#evidence").get_by_text("could not be made").wait_for()  # and nothing seems to be on its way for ever
    assert page.locator("#verdict h2").count() == 1


def test_text_of_users_is_never_code(page, flower):
    ask(page, flower, "A rose ${window.hit=1} {{window.hit=2}} <img src=x onerror='window.hit=3'> `x` smelled <b>sweet</b>.")
    page.locator("#verdict h2").wait_for()
    for tab in ("Why", "Gate effect", "Words"):
        page.get_by_role("tab", name=tab).click()
        page.locator(".word:visible").first.wait_for()
    page.get_by_role("tab", name="What if").click()
    assert "onerror" in page.locator("#board").inner_text() and "onerror" in page.locator(".gate-passage").inner_text()
    assert page.evaluate("window.hit") is None
    assert "onerror" in page.locator("#words").inner_text()


@pytest.mark.parametrize(
    ("content", "passage", "sentence"),
    [
        (None, PASSAGE, "Choose a picture"),
        ("picture", "", "The passage is empty"),
        ("picture", "?!", "no words"),
        ("broken", PASSAGE, "not a picture we can read"),
    ],
)
def test_bad_input_reads_as_one_sentence(page, flower, tmp_path, content, passage, sentence):
    if content:
        file = flower
        if content == "broken":
            file = tmp_path / "broken.png"
            file.write_bytes(b"this is no picture")
        page.locator("#picture input[type=file]").set_input_files(str(file))
        page.wait_for_timeout(500)
    page.get_by_label("Passage").fill(passage)
    page.get_by_role("button", name="Compare", exact=True).click()
    told = page.locator("#verdict .notice")
    told.wait_for()
    text = told.inner_text()
    assert sentence in text
    assert "Traceback" not in text and "/" not in text.replace("and/or", "")


def test_an_unknown_smell_is_not_a_confident_no(page, flower):
    ask(page, flower, "Chapter the second, in which nothing at all is decided and everything is postponed.")
    page.locator("#verdict .notice").first.wait_for()
    assert "Cannot tell" in page.locator("#verdict h2").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_page_does_not_scroll_sideways(browser, url, flower, scheme):
    tab = browser.new_page(viewport={"width": 390, "height": 844})
    tab.goto(f"{url}?__theme={scheme}")
    tab.get_by_role("button", name="Compare", exact=True).wait_for()
    ask(tab, flower, PASSAGE)
    tab.locator("#verdict h2").wait_for()
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tab.wait_for_function("() => document.querySelector('#verdict').getBoundingClientRect().top < innerHeight")  # nobody has to look for it
    tab.close()


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
    tab_to(page, "document.activeElement.innerText === 'Gate effect' || document.activeElement.innerText === 'Why'")
    page.keyboard.press("Enter")
    tab_to(page, "document.activeElement.className === 'word'")
    note = "getComputedStyle(document.activeElement, '::after').content"
    assert page.evaluate(note).startswith('"logit for (+) or against')


def tab_to(page, condition: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(condition):
            return
    raise AssertionError(f"The Tab key never reached {condition}.")


def test_the_answer_is_announced(page):
    page.wait_for_function("() => document.querySelector('#verdict').getAttribute('aria-live') === 'polite'")


def test_weights_that_cannot_be_had_are_named_on_the_page(monkeypatch, tmp_path):
    import app

    monkeypatch.setenv("MUSTI_MODEL", str(tmp_path / "gone"))
    pipe, problem = app.load_pipeline()
    banner = app.weights_banner(pipe, problem)
    assert 'role="alert"' in banner and "gone" in banner and "embedded starter weights instead" in banner
    monkeypatch.setattr(pipe, "card", {"test": {"f1_macro": "<script>", "pairs": 3}, "caveat": "<script>"})
    banner = app.weights_banner(pipe, None)
    assert "<script>" not in banner and "No measured score" in banner


RESNET, SWIN = tiny_config().branches[1], ImageBranchConfig(
    "swin", "swin_tiny_patch4_window7_224", {"img_size": 56, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 7}, image_size=56
)  # fmt: skip


@pytest.mark.parametrize(
    "changes", [{"gate": "none"}, GATES["word"], GATES["linear by place"], {"branches": (RESNET,)}, {"branches": (SWIN,)}, {"branches": (replace(RESNET, axes="published"),)}, {"objects": ()}]
)
def test_every_kind_of_model_has_a_page(changes, tokenizer, flower):
    import app

    model = tiny_model(**changes)
    pipe = MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu")
    name, kinds = model.config.branches[0].name, [v for _, v in views.view_choices(pipe)]
    functions = {f.name: f.fn for f in app.build(pipe).fns.values()}
    question, _, verdict, votes, *_ = functions["answer"](str(flower), PASSAGE, 5.0)
    assert "Probability of YES" in verdict and question == (str(flower), PASSAGE, 5.0, False, verdict, votes)
    explanation, _, board, *_ = functions["run"](question, *question[:2])
    board_of_gate, evidence, evidence_map, _, effect, effect_map, _, picture, legend, words = functions["redraw"](
        explanation, "whole model", name, kinds[0] if kinds else None, 1, name, 0.5, False
    )
    assert "roses" in words and "roses" in evidence and evidence_map["visible"] and board["words"]
    measured, _ = functions["measure"](question, explanation)
    looked_at = "whole model", name, kinds[0] if kinds else None, name
    judged, of_gate, of_map, of_words = functions["judge"](explanation, measured, *looked_at)
    assert judged.count("<li>") == 2 and bool(of_map) == (f"{kinds[0]}" in measured if kinds else False) and of_words.count("<li>") == 1
    assert bool(of_gate) == (f"effect:{name}" in measured)
    assert ("no gate" in effect) == ("no gate" in board_of_gate["told"]) == (model.config.gate == "none")
    assert (picture["value"] is not None) == picture["visible"] == bool(kinds) and ("no such map" in legend) == (not kinds)
    has_places = model.config.gate != "none" and model.config.branches[0].axes == "natural"
    assert effect_map["visible"] == has_places and ("With the gate as learned" in effect) == (model.config.gate != "none")
    if model.config.gate != "none":
        shown = json.loads(board_of_gate["board"])
        assert shown["places"] == has_places and ("three numbers" in shown["texts"]["note"]) == (model.config.gate == "scalar")
    if model.config.gate in ("word", "linear"):
        states = [functions["alter"](question, explanation, board, state, [b.name for b in model.config.branches]) for state in ("learned", "shut", "open")]
        assert len(set(states)) == 3 and "as it is" not in states[0]


def test_take_away(page, flower, tmp_path):
    ask(page, flower, PASSAGE)
    page.locator("#faithful li").first.wait_for()
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


def test_nothing_to_take_away_yet(page):
    page.locator("#pack").click()
    page.get_by_text("There is nothing to take away yet").wait_for()


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
        page.mouse.move(box["x"] + 5, y) if row == first else page.mouse.move(box["x"] + (5 if row % 2 == 0 else box["width"] - 5), y, steps=2)
        if row == first:
            page.mouse.down()
        page.mouse.move(box["x"] + (box["width"] - 5 if row % 2 == 0 else 5), y, steps=16)
    page.mouse.up()


def test_guided_tour(page):
    """Each step leads where it says, and what it says is so."""
    for step, place in {1: "#evidence .word", 2: "#board .strike", 3: "#evidence .word", 4: "#votes table", 5: "#verdict .notice"}.items():
        page.get_by_role("tab", name="About").click()
        page.locator(f"#step-{step}").click()
        page.locator(place).first.wait_for()
        page.locator("#faithful li").first.wait_for(state="attached")
        headline = page.locator("#verdict h2").inner_text()
        if step == 1:
            strongest = page.evaluate("[...document.querySelectorAll('#evidence .word')].map(w => [+w.dataset.note.split(' ').pop(), w.innerText]).sort((a, b) => b[0] - a[0])")
            assert strongest[0][1] == "Haus" and strongest[0][0] > 5 * strongest[1][0] and "YES: both point to “house”" in headline
        if step == 2:
            page.locator("#board .strike", has_text="Haus").click()
            page.get_by_text("That turns the answer.").wait_for()
            page.locator("#undo").click()
            page.locator("#altered table").wait_for(state="detached")
            draw(page, 0, 5)
            page.get_by_text("That turns the answer.").wait_for()
        if step == 3:
            assert "NO" in headline and "“flower”" in headline and "sheep" not in headline
        if step == 4:
            page.locator(".gate-switch").get_by_role("radio", name="shut").click()
            assert "YES" in headline and "without the picture" in page.locator(".gate-told").inner_text()
        if step == 5:
            assert "Cannot tell" in headline


def test_every_example_is_answered_rightly():
    pipe = MustiPipeline.from_pretrained()
    for example in app.EXAMPLES:
        answer = pipe(example.path, example.passage)
        assert ("cannot tell" if answer.unsure else answer.label) == example.answer, example.source
