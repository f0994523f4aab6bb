"""When an answer says little: the rule, and that whoever tells the answer tells that as well."""

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from musti_model import MustiModel, MustiPipeline
from musti_model.__main__ import main
from musti_model.records import parse_records
from page.answers import answered, write_results
from page.archive import PictureZip
from page.parts.verdict import verdict_html
from page.tabs.batch import summary_html
from page.take_away import zipped
from tests.conftest import PASSAGE

OBJECTS = ("flower", "dog", "fish")  # of the tiny weights
# of each object, and of nothing known
SURE, GUESSED, EMPTY = (0.8, 0.1, 0.05, 0.05), (0.35, 0.3, 0.2, 0.15), (0.3, 0.1, 0.1, 0.5)
DOUBT = "The model is not sure what the picture shows: its best guess, flower, has 35%."
HEADLINE = "Cannot tell: I am not sure what the picture shows."


@pytest.fixture
def told(monkeypatch):
    """Has every model see and read what a test says, and answer with its probability."""

    def tell(seen: tuple[float, ...], read: str | None, probability: float = 0.9) -> None:
        logits = torch.full((4,), -50.0)
        logits[OBJECTS.index(read) if read else 3] = 50.0
        monkeypatch.setattr(
            MustiModel, "name_picture", lambda self, image: torch.tensor(seen).log().expand(len(image.tokens), -1)
        )
        monkeypatch.setattr(MustiModel, "name_words", lambda self, words: logits.expand(*words.mask.shape, -1))
        monkeypatch.setattr(MustiPipeline, "_probability", lambda self, logit: probability)

    return tell


@pytest.mark.parametrize(
    ("seen", "read", "probability", "unsure"),
    [
        (SURE, "flower", 0.9, False),
        (SURE, "fish", 0.1, False),  # a thing is seen, a thing is read
        (SURE, None, 0.9, True),
        (GUESSED, None, 0.1, True),  # nothing is read
        # nothing known is seen: an empty picture can pass for any thing
        (EMPTY, "flower", 0.99, True),
        (EMPTY, "flower", 0.1, True),
        (GUESSED, "flower", 0.1, True),
        (GUESSED, "flower", 0.7, True),  # a guess, and no clear YES
        (GUESSED, "flower", 0.9, False),
        (GUESSED, "fish", 0.75, False),  # the passage settles what the picture shows
    ],
)
def test_when_an_answer_says_little(pipe, picture, told, monkeypatch, seen, read, probability, unsure):
    monkeypatch.setattr(pipe, "config", replace(pipe.config, threshold=0.5))
    told(seen, read, probability)
    for answer in (pipe(picture, PASSAGE), pipe.rank(picture, [PASSAGE])[0][1], pipe(pipe.ask(picture, PASSAGE))):
        assert answer.unsure == unsure and answer.doubtful == (seen != SURE)
        assert (DOUBT in answer.notices) == (seen == GUESSED)


def test_a_clear_yes_for_what_is_not_among_the_guesses_stays_in_doubt(pipe, picture, told, monkeypatch):
    told(GUESSED, "fish")
    monkeypatch.setattr("musti_model.pipeline.SHOWN", 2)
    assert pipe(picture, PASSAGE).unsure


def test_page_interface_batch_zip_and_command_line_say_the_same(pipe, folder, picture, told, tmp_path, capsys):
    told(GUESSED, "flower", 0.1)
    picture.save(tmp_path / "p.png")
    answer = pipe(tmp_path / "p.png", PASSAGE)
    seen, read = [["flower", 0.35], ["dog", 0.3], ["fish", 0.2]], answer.to_json()["objects_in_passage"]
    assert answer.to_json() | {"unsure": True, "objects_in_picture": seen} == answer.to_json() and read[0] == [
        "flower",
        "The",
    ]
    assert HEADLINE in verdict_html(answer) and DOUBT in verdict_html(answer)

    assert main([str(tmp_path / "p.png"), PASSAGE, "--weights", str(folder), "--json"]) == 0
    line = json.loads(capsys.readouterr().out)
    assert line["unsure"] and line["objects_in_picture"] == seen and line["objects_in_passage"] == read

    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        archive.write(tmp_path / "p.png", "p.png")
    records = [
        {"id": 1, "image": "p.png", "text": PASSAGE, "language": "en"},
        {"id": 2, "image": "gone.png", "text": PASSAGE, "language": "en"},
    ]
    rows = answered(pipe, list(parse_records(records)), PictureZip(tmp_path / "p.zip"))
    assert "<td>en</td><td>0</td><td>0</td><td>1</td>" in summary_html(rows, finished=True)
    (tmp_path / "out").mkdir()
    table, whole = write_results(rows, records, lambda path: str(Path(path).rename(tmp_path / "out" / Path(path).name)))
    filled = json.loads(Path(whole).read_text())["pairs"]
    assert (
        filled[0]["unsure"]
        and filled[0]["objects_in_picture"] == seen
        and filled[0]["objects_in_passage"] == read
        and "unsure" not in filled[1]
    )
    assert "flower: 0.35; dog: 0.3; fish: 0.2" in Path(table).read_text(encoding="utf-8-sig")

    path = zipped(
        pipe.explain(tmp_path / "p.png", PASSAGE), None, lambda path: str(Path(path).rename(tmp_path / "explained.zip"))
    )
    with zipfile.ZipFile(path) as archive:
        kept = json.loads(archive.read("explanation/manifest.json"))["prediction"]
    assert kept["unsure"] and kept["objects_in_picture"] == seen and kept["objects_in_passage"] == read
