"""What is said of the part of a long passage that the model does not read."""

import pytest

from musti_model import MustiPipeline
from musti_model.pipeline import LISTED, WINDOWS
from musti_model.smells import smell_words
from page.language import in_language, say
from tests.conftest import pipeline

NAMES, SMELLS = "names {things}, which the model knows", "speaks of a smell ({words})"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "The ſmell was a ſtench; odours, perfumed and fragrant.",
            ["ſmell", "ſtench", "odours", "perfumed", "fragrant"],
        ),
        ("Der Roſenduft, die Gerüche, ein Geſtank; es roch.", ["Roſenduft", "Gerüche", "Geſtank", "roch"]),
        ("L’odeur du parfum et la puanteur.", ["odeur", "parfum", "puanteur"]),
        ("L'odore, il profumo, la puzza.", ["odore", "profumo", "puzza"]),
        ("Vonj, smrad in kakor je dišalo.", ["Vonj", "smrad", "dišalo"]),
        ("Das Gerücht ging um; they relent, puzzled, over dishes by St. Roch’s rochet.", ["Roch"]),
        ("Nichts, rien, niente, nothing, nič.", []),
    ],
)
def test_words_that_speak_of_a_smell(text, found):
    assert smell_words(text) == found


@pytest.fixture
def roses(monkeypatch):
    """Has models know roses, and no other word; -> a list that grows with every reading."""
    read = []

    def names(self, texts, words):
        read.append(len(texts.texts))
        return [[("flower", w.text) for w in row if w.text in ("roses", "Roses")] for row in texts.words]

    monkeypatch.setattr(MustiPipeline, "_names", names)
    return read


def long(pipe, windows: float, end: str) -> str:
    """A passage that fills so many times what the model reads, and an end."""
    fits = len(pipe.processor.passages(["garden " * 100]).words[0])
    return "garden " * round(windows * fits) + end


def said(answer, part: str) -> list[str]:
    return [n for n in answer.notices if part in getattr(n, "template", "")]


@pytest.mark.parametrize("windows", [1, 1.5, 3])
def test_what_was_cut_off_and_names_a_thing_is_told(pipe, picture, roses, windows):
    passage = long(pipe, windows, "roses, Roses")
    for answer in (
        pipe(picture, passage),
        pipe.rank(picture, ["roses", passage], batch=2)[0][1],
        pipe(pipe.ask(picture, passage)),
    ):
        if answer.objects_in_passage:
            continue  # the short one of the two that were ranked
        assert "names roses, which" in said(answer, NAMES)[0] and not said(answer, SMELLS)
        assert any("longer than the model reads" in n for n in answer.notices) and answer.unsure


def test_what_is_read_is_not_told_again(pipe, picture, roses):
    for passage in ("the roses smell", long(pipe, 1.5, "garden"), "roses " + long(pipe, 1.5, "")):
        assert not said(pipe(picture, passage), NAMES) and not said(pipe(picture, passage), SMELLS)


def test_no_more_than_a_few_windows_are_read(pipe, picture, roses):
    assert not said(pipe(picture, long(pipe, WINDOWS + 2.5, "roses")), NAMES)
    assert len(roses) == 1 + WINDOWS


def test_a_word_that_no_window_holds_is_not_read_again_and_again(tokenizer, picture, roses):
    pipeline(tokenizer, text_length=4)(picture, "roses caffèroseshundegarten")
    assert len(roses) == 2


def test_a_smell_that_was_cut_off_is_told_also_by_weights_that_know_no_things(pipe, tokenizer, picture):
    words = ["Gestank", "stench", "gestank", "odore", "vonj"]
    for asked in (pipe, pipeline(tokenizer, objects=())):
        told = said(asked(picture, long(pipe, 4, " ".join(words))), SMELLS)
        assert len(told) == 1 and f"({', '.join(['Gestank', 'stench', 'odore'][:LISTED])} …)" in told[0]
        assert not said(asked(picture, "A stench"), SMELLS)


def test_signs_alone_at_the_end_are_no_error(pipe, picture, roses):
    assert not said(pipe(picture, long(pipe, 2, "! 1790. ?" * 50)), NAMES)


@pytest.mark.parametrize("tag", ["de", "fr", "it", "sl"])
def test_it_is_told_in_the_visitor_s_language(pipe, picture, roses, tag):
    notices = pipe(picture, long(pipe, 1.5, "a stench of roses")).notices
    told = [in_language(tag, lambda n=n: say(n)) for n in notices if NAMES in n.template or SMELLS in n.template]
    assert len(told) == 2 and "roses" in told[0] and "stench" in told[1]
    assert all(t not in notices for t in told)
