"""The tab "Batch": every record comes back, answered or with the reason why not."""

import csv
import json
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from musti_model import InputError
from page.batch import summary_html
from page.records import SIZE, Pictures, answered, records_of, write_results
from tests.browser import ask, wait_for
from training.data import parse_records


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
    {"id": 1, "image": "https://museum.example/b/flower.jpg?size=full", "text": "A rose.", "language": "English", "extra": {"kept": [1]}},
    {"id": 2, "image": "gone.jpg", "text": "A rose.", "language": "en"},
    {"id": 3, "image": "broken.jpg", "text": "Une rose.", "language": "fr"},
    {"id": 4, "image": "flower.jpg", "text": "?!", "language": "fr"},
    {"id": 1, "image": "flower.jpg", "text": "twice"},
    "no record",
    {"id": 6, "image": "a/flower.jpg", "text": "=cmd rose", "language": "fr"},
]


def test_every_record_comes_back(pipe, archive, tmp_path):
    items = list(parse_records(RECORDS))
    rows = answered(pipe, items, Pictures(archive))
    assert [bool(r["answer"]) for r in rows] == [True, False, False, False, False, False, True]
    for row, words in zip(rows, ["", "no picture 'gone.jpg'", "cannot be read", "no words", "used before", "not an object", ""], strict=True):
        assert words in row["problem"] and bool(row["problem"]) == bool(words)
    table, whole = write_results(rows, RECORDS, keep(tmp_path))
    filled = json.loads(Path(whole).read_text())["pairs"]
    assert filled[0]["extra"] == {"kept": [1]} and filled[0]["subtask1_label"] in ("YES", "NO") and "problem" in filled[1]
    assert filled[5]["record"] == "no record" and len(filled) == len(RECORDS)
    with open(table, encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert cells[6]["text"] == "'=cmd rose" and cells[0]["language"] == "en"
    html = summary_html(rows, finished=True)
    assert "2 answered, 5 not, of 7" in html and "<td>fr</td>" in html


def test_of_two_pictures_with_one_name_the_longer_path_fits(archive):
    pictures = Pictures(archive)
    assert pictures.open("https://museum.example/b/flower.jpg?size=full").size == (30, 20)
    assert pictures.open("C:\\scans\\a\\flower.jpg").size != (30, 20)


def test_tables(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text("image,text\na.jpg,\"A rose,\nin two lines\"\n", encoding="utf-8")
    assert list(records_of(path)) == [{"image": "a.jpg", "text": "A rose,\nin two lines", "id": 1}]
    path.write_text("image;text;language\na.jpg;A rose, red.;en\n", encoding="utf-8")  # as spreadsheets of many countries write it
    assert list(records_of(path)) == [{"image": "a.jpg", "text": "A rose, red.", "language": "en", "id": 1}]
    path.write_text("picture,text\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column image"):
        list(records_of(path))
    path.write_bytes(b"image,text\n\xff\xfe,x\n")
    with pytest.raises(InputError, match="not UTF-8"):
        list(records_of(path))
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        Pictures(tmp_path / "x.zip")


def start(page, archive: Path, folder: Path, records: list) -> None:
    """A batch on the page."""
    (folder / "pairs.json").write_text(json.dumps({"pairs": records}))
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-file input[type=file]").set_input_files(str(folder / "pairs.json"))
    page.locator("#batch-zip input[type=file]").set_input_files(str(archive))
    page.locator("#batch-zip").get_by_text("pictures").first.wait_for()
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
    assert (tmp_path / "back.csv").read_text(encoding="utf-8-sig").startswith("id,image,text,language,answer")


def test_others_are_answered_between_the_parts_of_a_batch(browser, url, page, archive, flower, tmp_path, slowly):
    begun = slowly("predict")
    start(page, archive, tmp_path, [{"id": n, "image": "a/flower.jpg", "text": "A rose.", "language": "en"} for n in range(8 * SIZE)])
    wait_for(page, begun)
    other = browser.new_page()
    other.goto(url)
    other.locator("#run").wait_for()
    ask(other, flower, "She smelled the roses.")
    other.locator("#verdict h2").wait_for()
    assert page.get_by_text("Done:").count() == 0  # eight seconds at the least
    page.get_by_text("Done:").wait_for()
    other.close()


def test_results_do_not_outlive_their_files(page, archive, tmp_path):
    start(page, archive, tmp_path, RECORDS)
    page.get_by_text("Done:").wait_for()
    page.locator("#batch-file").get_by_role("button").first.click()
    page.get_by_text("Done:").wait_for(state="detached")


def test_batch_needs_both_files(page):
    page.get_by_role("tab", name="Batch").click()
    page.locator("#batch-run").click()
    page.get_by_text("Choose a file of pairs and a zip of pictures first").wait_for()
