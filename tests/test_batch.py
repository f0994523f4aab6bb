"""The tab "Batch": every record comes back, answered or with the reason why not."""

import csv
import errno
import json
import shutil
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest
from PIL import Image

from musti_model import InputError, MustiPipeline
from musti_model.records import parse_records
from page.answers import SIZE, answered, records_of, write_results
from page.archive import LARGEST, PictureZip
from page.calls import calls_of, new_lanes
from page.examples import EXAMPLES, batch_of_examples
from page.language import in_language
from page.tabs.batch import BatchTab, Fields, Kept, summary_html
from tests.browser import PATIENCE, ask, new_tab, wait_for


@pytest.fixture
def archive(flower, tmp_path) -> Path:
    path = tmp_path / "pictures.zip"
    Image.new("RGB", (30, 20), "blue").save(tmp_path / "blue.png")
    with zipfile.ZipFile(path, "w") as file:
        file.write(flower, "a/flower.jpg")
        file.write(tmp_path / "blue.png", "b/flower.jpg")
        file.writestr("broken.jpg", b"no picture")
    return path


def keep(folder: Path):
    return lambda path: str(shutil.copy(path, folder / Path(path).name))


RECORDS = [
    {
        "id": 1,
        "image": "https://museum.example/b/flower.jpg?size=full",
        "text": "A rose.",
        "language": "English",
        "extra": {"kept": [1]},
    },
    {"id": 2, "image": "gone.jpg", "text": "A rose.", "language": "en"},
    {"id": 3, "image": "broken.jpg", "text": "Une rose.", "language": "fr"},
    {"id": 4, "image": "flower.jpg", "text": "?!", "language": "fr"},
    {"id": 1, "image": "flower.jpg", "text": "twice"},
    "no record",
    {"id": 6, "image": "a/flower.jpg", "text": "=cmd rose", "language": "fr"},
]


def test_every_record_comes_back(pipe, archive, tmp_path):
    items = list(parse_records(RECORDS))
    rows = answered(pipe, items, PictureZip(archive))
    assert [bool(r["answer"]) for r in rows] == [True, False, False, False, False, False, True]
    for row, words in zip(
        rows,
        ["", "no picture 'gone.jpg'", "cannot be read", "no words", "used before", "not an object", ""],
        strict=True,
    ):
        assert words in row["problem"] and bool(row["problem"]) == bool(words)
    table, whole = write_results(rows, RECORDS, keep(tmp_path))
    filled = json.loads(Path(whole).read_text())["pairs"]
    assert (
        filled[0]["extra"] == {"kept": [1]} and filled[0]["subtask1_label"] in ("YES", "NO") and "problem" in filled[1]
    )
    assert filled[5]["record"] == "no record" and len(filled) == len(RECORDS)
    with open(table, encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert cells[6]["text"] == "'=cmd rose" and cells[0]["language"] == "en"
    html = summary_html(rows, finished=True)
    assert "2 answered, 5 not, of 7" in html and "<td>fr</td>" in html


def test_tables_without_ids_are_counted(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text('image,text\na.jpg,"A rose,\nin two lines"\n', encoding="utf-8")
    assert list(records_of(path)) == [{"image": "a.jpg", "text": "A rose,\nin two lines", "id": 1}]


def test_the_second_file_is_no_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        PictureZip(tmp_path / "x.zip")


HALF = "half \ud800 rose"
ODD = [
    {"id": HALF, "image": f"{HALF}.jpg", "text": HALF, "language": HALF},
    {"id": 2, "image": "a/flower.jpg", "text": HALF, "kept": [HALF], HALF: 1},
    {"id": 3, "image": "http://[", "text": "A rose."},
    {"id": 4, "image": "https://museum\u2100.example/gone.png", "text": "A rose."},
    {"id": 5, "image": "gone\0.png", "text": "x"},
    {"id": float("inf"), "image": "a/flower.jpg", "text": "A rose."},
    {"id": [6], "image": "a/flower.jpg", "text": "A rose."},
    {"id": 7, "image": None, "text": "A rose."},
    {"id": 8, "image": "a/flower.jpg", "text": ["A rose."]},
    {"id": 9, "image": "a/flower.jpg", "text": "A rose.", "x": [float("nan"), 1e300]},
    None,
    3,
    ["x"],
    HALF,
]


def test_odd_records_come_back_each_in_its_place(pipe, archive, tmp_path):
    """With whole ones between them; and written to both files, which are text that any program reads."""
    whole = [
        {"id": f"whole {n}", "image": "a/flower.jpg", "text": "A rose.", "language": "en"} for n in range(len(ODD))
    ]
    (tmp_path / "pairs.json").write_text(
        json.dumps([r for pair in zip(ODD, whole, strict=True) for r in pair]), encoding="utf-8"
    )
    records = list(records_of(tmp_path / "pairs.json"))
    rows = answered(pipe, list(parse_records(records)), PictureZip(archive))
    assert all(row["answer"] for row in rows[1::2]) and all(bool(row["answer"]) != bool(row["problem"]) for row in rows)
    assert [n for n, row in enumerate(rows[::2]) if row["answer"]] == [1, 5, 9]
    table, written = write_results(rows, records, keep(tmp_path))
    filled = json.loads(Path(written).read_text(encoding="utf-8"))["pairs"]
    for record, back in zip(records, filled, strict=True):
        given = record if isinstance(record, dict) else {"record": record}
        assert json.dumps(given | {k: back[k] for k in back if k not in given}) == json.dumps(back)
    with open(table, encoding="utf-8-sig", newline="") as file:
        assert [row["id"] for row in csv.DictReader(file)][1::2] == [r["id"] for r in whole]
    assert summary_html(rows, finished=True).encode()


def test_a_pair_that_breaks_the_model_is_alone(pipe, archive, monkeypatch):
    real = type(pipe).predict

    def breaking(self, images, texts, batch=16):
        if any("broken" in t for t in texts):
            raise RuntimeError("an internal message")
        return real(self, images, texts, batch)

    monkeypatch.setattr(type(pipe), "predict", breaking)
    records = [
        {"id": n, "image": "a/flower.jpg", "text": "A broken rose." if n in (2, 5) else "A rose."} for n in range(8)
    ]
    rows = answered(pipe, list(parse_records(records)), PictureZip(archive))
    assert [bool(r["answer"]) for r in rows] == [n not in (2, 5) for n in range(8)]
    assert rows[2]["problem"] == "The model could not answer this pair; try another copy of the picture."


def test_a_part_that_cannot_be_answered_loses_no_other(pipe, archive, tmp_path):
    real, asked = calls_of(pipe, lambda function: function, new_lanes()), []

    def answer_many(items, pictures):
        asked.append(len(items))
        if len(asked) == 2:
            raise gr.Error("No GPU is free {now}.")
        return real.answer_many(items, pictures)

    with gr.Blocks():
        tab = BatchTab(replace(real, answer_many=answer_many))
    (tmp_path / "pairs.jsonl").write_text(
        "\n".join(json.dumps({"id": n, "image": "a/flower.jpg", "text": "A rose."}) for n in range(3 * SIZE))
    )
    files = str(tmp_path / "pairs.jsonl"), str(archive)
    told = [html for html, *_ in tab.answer_all(Fields(), None, *files, 1.0, lambda *_, **__: None)][-1]
    assert "32 answered, 16 not, of 48 records" in told and "No GPU is free {now}." in told and asked == [SIZE] * 3


def test_pictures_are_opened_one_at_a_time_and_kept_small(pipe, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for n in range(4):
            Image.new("RGB", (4000, 3000), (n, 0, 0)).save(tmp_path / "p.jpg")
            file.write(tmp_path / "p.jpg", f"scan-of-{n}.jpg")
    seen = []
    pictures = PictureZip(tmp_path / "p.zip")
    answered(
        SimpleNamespace(
            processor=pipe.processor,
            predict=lambda images, texts, batch: seen.extend(images) or pipe.predict(images, texts),
        ),
        list(parse_records([{"id": n, "image": f"scan-of-{n}.jpg", "text": "A rose."} for n in range(4)])),
        pictures,
    )
    assert [max(image.size) for image in seen] == [LARGEST] * 4


def test_a_picture_found_by_its_name_alone_is_told(pipe, flower, tmp_path):
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        file.write(flower, "scans/flower.jpg")
    rows = answered(
        pipe,
        list(parse_records([{"id": 1, "image": "https://museum.example/x/flower.jpg", "text": "A rose."}])),
        PictureZip(tmp_path / "p.zip"),
    )
    assert rows[0]["answer"] and "by its file name alone, in another folder: 'scans/flower.jpg'" in rows[0]["notices"]


def test_a_full_disk_is_a_sentence(tmp_path):
    def full(path):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(InputError, match="its disk is full"):
        write_results([], [], full)


def test_a_late_message_takes_no_results_away(pipe):
    with gr.Blocks():
        tab = BatchTab(calls_of(pipe, lambda function: function, new_lanes()))
    fields, files = Fields(), ("a.json", "p.zip")
    kept = Kept(files, "en", finished=True)
    fields.seen(files, 5.0)
    nothing = (gr.skip(),) * 3
    assert tab.forget(fields, kept, *files, 6.0) == nothing and tab.forget(fields, None, *files, 6.0) == nothing
    assert tab.forget(fields, kept, "a.json", None, 4.0) == nothing  # sent before the zip was there
    assert tab.forget(fields, kept, "a.json", "q.zip", 7.0)[0] == "" and fields.files == ("a.json", "q.zip")


def test_a_batch_ends_when_its_files_are_others(pipe, archive, tmp_path):
    """And what stands there already is not answered anew, but in another language."""
    rows = [{"id": n, "image": "a/flower.jpg", "text": f"A rose {n}.", "language": "en"} for n in range(2 * SIZE)]
    (tmp_path / "pairs.json").write_text(json.dumps({"pairs": rows}))
    with gr.Blocks():
        tab = BatchTab(calls_of(pipe, lambda function: function, new_lanes()))
    files, fields, progress = (str(tmp_path / "pairs.json"), str(archive)), Fields(), lambda *_, **__: None
    running = tab.answer_all(fields, None, *files, 1.0, progress)
    assert f"{SIZE} answered" in next(running)[0]
    tab.forget(fields, None, files[0], None, 0.5)  # it comes late
    assert f"{2 * SIZE} answered" in next(running)[0]
    *_, kept = next(running)
    assert kept == Kept(files, "en", finished=True)
    assert list(tab.answer_all(fields, kept, *files, 2.0, progress)) == [(gr.skip(),) * 3]
    again = in_language("de", lambda: next(tab.answer_all(fields, kept, *files, 2.0, progress)))
    assert again[2] == Kept(files, "de", finished=False)
    running = tab.answer_all(fields, None, *files, 3.0, progress)
    next(running)
    tab.forget(fields, None, files[0], None, 4.0)
    assert list(running) == []


def start(page, archive: Path, folder: Path, records: list) -> None:
    """A batch on the page."""
    (folder / "pairs.json").write_text(json.dumps({"pairs": records}))
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-file input[type=file]").set_input_files(str(folder / "pairs.json"))
    page.locator("#batch-zip input[type=file]").set_input_files(str(archive))
    for box in ("#batch-file", "#batch-zip"):
        page.locator(f"{box} .file-preview").wait_for()  # uploaded, and not only chosen
    page.locator("#batch-run").click()


def test_on_the_page(page, archive, tmp_path):
    start(page, archive, tmp_path, RECORDS)
    page.get_by_text("Done:").wait_for()
    assert "2 answered, 5 not, of 7 records" in page.locator("#batch-told").inner_text()
    links = page.locator("#batch-results a")
    links.first.wait_for()
    with page.expect_download() as download:
        links.first.click()
    download.value.save_as(tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_text(encoding="utf-8-sig").startswith('"id","image","text","language","answer"')
    page.locator("#batch-run").click()  # what stands there is not answered anew
    page.wait_for_timeout(1000)
    assert page.get_by_text("Done:").count() == 1 and links.count() == 2


def test_others_are_answered_while_a_batch_is_at_work(browser, url, page, archive, flower, tmp_path, monkeypatch):
    begun, go, predict = threading.Event(), threading.Event(), MustiPipeline.predict

    def held(self, *given, **named):
        begun.set()
        assert go.wait(PATIENCE / 1000)
        return predict(self, *given, **named)

    monkeypatch.setattr(MustiPipeline, "predict", held)
    start(page, archive, tmp_path, [{"id": 1, "image": "a/flower.jpg", "text": "A rose.", "language": "en"}])
    wait_for(page, begun)
    other = new_tab(browser)
    other.goto(url)
    other.locator("#run").wait_for()
    ask(other, flower, "She smelled the roses.")
    other.locator("#verdict h2").wait_for()
    assert page.get_by_text("Done:").count() == 0
    go.set()
    page.get_by_text("Done:").wait_for()
    other.close()


def test_results_do_not_outlive_their_files(page, archive, tmp_path):
    start(page, archive, tmp_path, RECORDS)
    page.get_by_text("Done:").wait_for()
    page.locator("#batch-results a").first.wait_for()
    page.locator("#batch-file").get_by_role("button").first.click()
    page.get_by_text("Done:").wait_for(state="detached")


def test_a_summary_tells_in_which_language_it_was_made():
    """It stays in it when another is chosen, as the files do."""
    assert in_language("de", lambda: summary_html([], finished=True)).startswith('<div lang="de">\n<p><strong>Fertig')


def test_batch_needs_both_files(page):
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-run").click()
    page.locator("#batch-told [role=alert]", has_text="Choose a file of pairs and a zip of pictures first").wait_for()


def test_what_is_wrong_with_the_files_stays_until_they_change(pipe, archive, tmp_path):
    (tmp_path / "pairs.csv").write_text("id,bild,text\n1,a.jpg,A rose.\n", encoding="utf-8")
    with gr.Blocks():
        tab = BatchTab(calls_of(pipe, lambda function: function, new_lanes()))
    given, fields = (str(tmp_path / "pairs.csv"), str(archive)), Fields()
    ((told, _, kept),) = tab.answer_all(fields, None, *given, 1.0, lambda *_, **__: None)
    assert 'role="alert"' in told and "has no column image" in told
    assert tab.forget(fields, kept, *given, 2.0) == (gr.skip(),) * 3
    assert tab.forget(fields, kept, given[0], None, 3.0)[0] == ""


def test_the_examples_are_a_batch_that_can_be_read(pipe, tmp_path):
    file, archive = batch_of_examples(keep(tmp_path))
    items = list(parse_records(records_of(file)))
    assert [(item.text, item.language) for item in items] == [(e.passage, e.language) for e in EXAMPLES]
    assert all(row["answer"] and not row["problem"] for row in answered(pipe, items, PictureZip(archive)))


def test_the_examples_are_answered_with_one_click(page):
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-example").click()
    page.get_by_text("Done:").wait_for()
    told = f"{len(EXAMPLES)} answered, 0 not, of {len(EXAMPLES)} records"
    page.wait_for_timeout(1000)
    assert told in page.locator("#batch-told").inner_text() and page.locator("#batch-results a").count() == 2
    page.locator("#batch-file").get_by_role("button").first.click()  # takes the file out again
    page.get_by_text("Done:").wait_for(state="detached")
