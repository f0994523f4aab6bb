"""The tab "Compare many" and the endpoint that ranks."""

import pytest
from playwright.sync_api import expect

from musti_model import InputError
from musti_model.processing import open_image
from page.calls import ranked
from page.examples import EXAMPLES
from page.markup import data_url
from page.tabs.many import THUMBNAIL, readable, short, split_passages, table_rows
from tests.browser import PATIENCE, wait_for
from tests.conftest import ANSWER

PASSAGES = [
    "Chapter the second, in which nothing is decided.",
    "She blew out the candle, and the room went dark.",
    "The herrings lay on the quay and stank.",
]


def test_passages_are_split_at_empty_lines_or_else_at_lines():
    assert split_passages("a b\nc\n\n d \r\n\r\n\ne") == ["a b\nc", "d", "e"]
    assert split_passages("a\nb\n") == ["a", "b"]
    assert split_passages("one\ntwo\n \t\nthree") == ["one\ntwo", "three"]  # as copied from a word processor
    with pytest.raises(InputError, match="no passage"):
        split_passages(" \n ")
    with pytest.raises(InputError, match="51 passages; 50"):
        split_passages("x\n" * 51)


def test_long_passages_are_named_by_their_beginning():
    assert short("a\n b") == "a b" and short("word " * 50, 12) == "word word w…"


def test_what_cannot_be_ranked_is_told_by_its_place(pipe, flower, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    cases = [
        ([flower], ["a rose", "?!"], "Passage 2: .*no words"),
        ([flower, tmp_path / "broken.png"], ["a rose"], "Picture 2 .broken.png.: .*not a picture"),
        ([], ["a rose"], "Choose a picture"),
        ([flower] * 2, ["a", "b"], "one picture with passages"),
        ([flower] * 21, ["a rose"], "20 pictures"),
    ]
    for pictures, passages, sentence in cases:
        with pytest.raises(InputError, match=sentence):
            ranked(pipe, [str(p) for p in pictures], passages)


def open_tab(page) -> None:
    page.get_by_role("tab", name="Compare many").click()
    page.locator("#rank").wait_for()


def test_what_is_wrong_is_told_in_place_of_the_ranking_until_the_inputs_change(page):
    open_tab(page)
    page.locator("#rank").click()
    page.locator("#many-told [role=alert]").wait_for()
    page.locator("#many-passages textarea").fill("A rose.")
    page.locator("#many-told [role=alert]").wait_for(state="detached")
    page.get_by_text("shows the evidence of a row").wait_for()


@pytest.mark.starter
def test_one_picture_with_passages_and_two_rows_side_by_side(page, flower):
    open_tab(page)
    page.locator("#many-picture input[type=file]").set_input_files(str(flower.with_name("candle.jpg")))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("\n\n".join(PASSAGES))
    page.locator("#rank").click()
    row = page.locator("#ranking tbody tr").filter(has_text="candle")
    row.wait_for()
    first = page.locator("#ranking tbody tr").first.inner_text()
    assert "candle" in first and "YES" in first
    row.get_by_role("button").click()
    page.locator("#card-1 .word", has_text="candle").wait_for()
    page.locator("#ranking tbody tr").filter(has_text="herrings").get_by_role("button").click()
    page.locator("#card-1 .word", has_text="herrings").wait_for()
    assert "candle" in page.locator("#card-2 h3").inner_text()
    page.locator("#card-map-2 img").wait_for()


@pytest.mark.parametrize("step", ["rank", "explain"])
def test_what_arrives_late_does_not_stand_beside_other_passages(page, flower, slowly, step):
    """The passages change while the model is at work."""
    open_tab(page)
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("\n\n".join(f"{p} {step}." for p in PASSAGES))  # asked by no other
    slow = slowly(step)
    page.locator("#rank").click()
    if step == "explain":
        page.locator("#ranking tbody tr").first.get_by_role("button").click()
    wait_for(page, slow.begun)
    page.locator("#many-passages textarea").fill("Entirely other: a horse.")
    wait_for(page, slow.ended)
    page.wait_for_timeout(1000)
    for place in ("#ranking tbody tr", "#card-1 .word", "#card-map-1 img"):
        expect(page.locator(place)).to_have_count(0, timeout=PATIENCE)


@pytest.mark.starter
def test_one_passage_with_pictures(page, flower):
    open_tab(page)
    page.get_by_label("One passage, many pictures").check()
    names = ["candle.jpg", "lemons.jpg", "china.jpg"]
    page.locator("#many-pictures input[type=file]").set_input_files([str(flower.with_name(n)) for n in names])
    page.locator("#many-pictures").get_by_text("china").first.wait_for()
    page.locator("#one-passage textarea").fill(PASSAGES[1])
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").nth(2).wait_for()
    assert "picture 1" in page.locator("#ranking tbody tr").first.inner_text()


@pytest.mark.starter
def test_a_picture_that_cannot_be_read_is_left_out_and_named(page, flower, tmp_path):
    (tmp_path / "<b>broken.png").write_bytes(b"no picture")
    open_tab(page)
    page.get_by_label("One passage, many pictures").check()
    given = [tmp_path / "<b>broken.png", flower.with_name("china.jpg"), flower.with_name("candle.jpg")]
    page.locator("#many-pictures input[type=file]").set_input_files([str(path) for path in given])
    page.locator("#many-pictures").get_by_text("china").first.wait_for()
    page.locator("#one-passage textarea").fill(PASSAGES[1])
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").nth(1).wait_for()
    first = page.locator("#ranking tbody tr").first
    assert page.locator("#ranking tbody tr").count() == 2 and "picture 3" in first.inner_text()
    told = page.locator("#many-told .notice").inner_text()
    assert told.startswith("picture 1: ") and "is left out" in told and "not a picture" in told
    first.get_by_role("button").click()  # its own evidence, though another picture came first
    page.locator("#card-1 h3", has_text="picture 3").wait_for()


def test_no_picture_that_can_be_read(page, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in (1, 2)]
    for path in paths:
        path.write_text(f"no picture, {path.name}")
    open_tab(page)
    page.get_by_label("One passage, many pictures").check()
    page.locator("#many-pictures input[type=file]").set_input_files([str(path) for path in paths])
    page.locator("#many-pictures [aria-label='2.png']").wait_for()
    page.locator("#one-passage textarea").fill(PASSAGES[1])
    page.locator("#rank").click()
    assert "not a picture" in page.locator("#many-told [role=alert]").inner_text()


def test_why_a_row_could_not_be_explained_stays_on_the_page(page, flower, monkeypatch):
    open_tab(page)
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("\n\n".join(PASSAGES))
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").nth(2).wait_for()

    def fails(*given, **named):
        raise InputError("The lens is foggy.")

    monkeypatch.setattr("musti_model.MustiPipeline.explain", fails)
    page.locator("#ranking tbody tr").first.get_by_role("button").click()
    assert "foggy" in page.locator("#card-1 [role=alert]").inner_text()
    assert page.locator("#ranking tbody tr").count() == 3


def test_one_passage_in_several_languages(page, flower):
    open_tab(page)
    page.get_by_label("One passage in several languages").check()
    page.locator("#many-picture input[type=file]").set_input_files(str(flower.with_name("candle.jpg")))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#passage-de textarea").fill("Die Kerze war niedergebrannt und roch nach Wachs.")
    page.locator("#passage-sl textarea").fill("Sveča je dogorela in po sobi je dišalo po vosku.")
    page.locator("#rank").click()
    for language in ("German", "Slovenian"):
        page.locator("#ranking tbody tr").filter(has_text=language).wait_for()
    page.get_by_text("the probability falls by").wait_for()


def test_rank_endpoint(starter_url, flower, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    from gradio_client import Client, handle_file

    client = Client(starter_url, verbose=False, analytics_enabled=False, download_files=str(tmp_path))
    candle = flower.with_name("candle.jpg")
    answers = client.predict(images=[handle_file(str(candle))], passages=PASSAGES, api_name="/rank")
    assert [a["index"] for a in answers][0] == 1 and len(answers) == 3
    assert set(answers[0]) == {"index", *ANSWER}
    answers = client.predict(
        images=[handle_file(str(p)) for p in (flower, candle)], passages=[PASSAGES[1]], api_name="/rank"
    )
    assert [a["index"] for a in answers] == [1, 0]
    with pytest.raises(Exception, match="one picture with passages"):
        client.predict(images=[handle_file(str(candle))] * 2, passages=PASSAGES, api_name="/rank")


def test_passages_in_templates_are_never_code(page, flower):
    """Gradio evaluates a filled template as JavaScript."""
    passages = [
        "${window.hit=1}rose",
        "a\\rose",
        "rose${5",
        "`${window.hit=1}`rose",
        "{{value}}rose",
        "<img/src=x/onerror=window.hit=1>rose",
    ]
    open_tab(page)
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("\n".join(passages))
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").nth(len(passages) - 1).wait_for()
    told = page.locator("#ranking").inner_text()
    assert all(passage in told for passage in passages)
    assert page.evaluate("window.hit") is None


def test_a_ranking_does_not_outlive_its_inputs(page, flower):
    open_tab(page)
    page.locator("#many-picture input[type=file]").set_input_files(str(flower))
    page.locator("#many-picture img").first.wait_for()
    page.locator("#many-passages textarea").fill("A rose.")
    page.locator("#rank").click()
    page.locator("#ranking tbody tr").wait_for()
    page.locator("#many-passages textarea").fill("A herring.")
    page.locator("#ranking tbody tr").wait_for(state="detached")
    page.locator("#many-passages textarea").fill("A rose.")  # put back: it stands again
    page.locator("#ranking tbody tr", has_text="A rose.").wait_for()


@pytest.mark.parametrize(("mode", "thumbnails"), [("passages", False), ("pictures", True)])
def test_an_example_is_ranked_with_one_click_and_ranked_pictures_are_seen(page, mode, thumbnails):
    open_tab(page)
    page.locator(f"#try-{mode}").click()
    rows = page.locator("#ranking tbody tr")
    rows.first.wait_for()
    ranked_things = {e.path if thumbnails else e.passage for e in EXAMPLES}
    assert rows.count() == len(ranked_things) > 2
    assert page.locator("#mode input:checked").get_attribute("value") == mode
    sizes = page.evaluate(
        "() => [...document.querySelectorAll('#ranking tbody img')].map(i => [i.naturalWidth, i.naturalHeight, "
        "i.clientWidth])"
    )
    assert len(sizes) == (rows.count() if thumbnails else 0) and all(
        0 < max(w, h) <= 96 and shown > 20 for w, h, shown in sizes
    )
    page.wait_for_timeout(1000)
    assert rows.count() == len(ranked_things)  # what was filled in took the ranking away by no late message
    rows.first.get_by_role("button").click()
    page.locator("#card-1 .word").first.wait_for()
    other = {"passages": "pictures", "pictures": "passages"}[mode]
    page.locator(f"#try-{other}").click()
    page.wait_for_function(
        (
            "thumbnails => !!document.querySelector('#ranking tbody img') !== thumbnails && "
            "document.querySelector('#ranking tbody tr')"
        ),
        arg=thumbnails,
    )


def test_thumbnails_are_of_the_ranked_pictures(pipe, flower):
    files = [str(flower.with_name(n)) for n in ("candle.jpg", "lemons.jpg")]
    kept, names, shown, told = readable([files[0], __file__, files[1]], ["candle", "script", "lemons"])
    assert kept == files and names == ["candle", "lemons"] and "script is left out" in told
    rows = {r["about"]: r["picture"] for r in table_rows(pipe.rank(kept, "A rose."), names, shown)}
    for name, file in zip(names, files, strict=True):
        assert rows[name] == data_url(open_image(file, THUMBNAIL), THUMBNAIL) and len(rows[name]) < 10_000
    assert rows["candle"] != rows["lemons"]
