"""A question of the page is opened, tokenised, encoded, explained and measured once for all that is asked about it, and
forgotten soon."""

import pickle
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import pytest
from PIL import Image

import page.recent
from musti_model import Alteration, InputError, MustiPipeline
from musti_model.model import MustiModel
from page.calls import PAGE_SIDE, calls_of, new_lanes
from page.recent import MOST, Recent
from page.uploads import GONE
from tests.conftest import PASSAGE


def here(function):
    return function


@pytest.fixture
def file(tmp_path) -> str:
    """A picture that is larger than the page."""
    path = tmp_path / "p.png"
    Image.effect_noise((1300, 400), 80).convert("RGB").save(path)
    return str(path)


@pytest.fixture
def done(monkeypatch) -> list[str]:
    """What was opened and encoded since."""
    import musti_model.question

    found, opened, encoded = [], musti_model.question.open_image, MustiModel.encode_images
    monkeypatch.setattr(musti_model.question, "open_image", lambda image: found.append("opened") or opened(image))
    monkeypatch.setattr(
        MustiModel, "encode_images", lambda self, images: found.append("encoded") or encoded(self, images)
    )
    return found


def test_a_question_is_opened_and_encoded_once_for_all_calls(word_pipe, file, done):
    calls = calls_of(word_pipe, here, new_lanes())
    prediction, looked = calls.predict(file, PASSAGE), calls.look(file, PASSAGE)
    calls.alter(file, PASSAGE, Alteration(struck=[1], gate="shut"))
    assert done == ["opened", "encoded"]
    explanation = calls.explain(file, PASSAGE)
    measured = calls.measure(file, PASSAGE, explanation)
    assert done.count("opened") == 1 and measured  # pictures with hidden regions are encoded by the way
    assert prediction == looked.prediction == explanation.prediction
    calls.predict(file, f"{PASSAGE} ")
    assert done.count("opened") == 2


def test_the_answers_are_those_of_a_question_asked_by_itself(word_pipe, file):
    calls, alteration = calls_of(word_pipe, here, new_lanes()), Alteration(struck=[1])
    calls.predict(file, PASSAGE)
    shared, alone = calls.explain(file, PASSAGE), word_pipe.explain(file, PASSAGE).fit(PAGE_SIDE)
    assert calls.predict(file, PASSAGE).logit == pytest.approx(word_pipe(file, PASSAGE).logit, abs=1e-5)
    assert shared.image.size == alone.image.size == (PAGE_SIDE, 308) and shared.image.tobytes() == alone.image.tobytes()
    assert shared.evidence.words == pytest.approx(alone.evidence.words, abs=1e-5)
    assert shared.evidence.map == pytest.approx(alone.evidence.map, abs=1e-5) and shared.maps[
        "gate:vit"
    ] == pytest.approx(alone.maps["gate:vit"], abs=1e-5)
    assert calls.alter(file, PASSAGE, alteration) == pytest.approx(
        word_pipe.what_if(file, PASSAGE, alteration), abs=1e-6
    )


def test_both_lanes_may_ask_the_same_question_at_once(word_pipe, file):
    def all_of(calls):
        return (
            calls.explain(file, PASSAGE).evidence.words,
            calls.look(file, PASSAGE).prediction,
            calls.alter(file, PASSAGE, Alteration(struck=[0])),
        )

    calls = calls_of(word_pipe, here, new_lanes())
    alone = all_of(calls_of(word_pipe, here, new_lanes()))
    with ThreadPoolExecutor(6) as visitors:
        for words, prediction, altered in visitors.map(lambda _: all_of(calls), range(12)):
            assert (
                words == pytest.approx(alone[0], abs=1e-5)
                and prediction == alone[1]
                and altered == pytest.approx(alone[2], abs=1e-6)
            )


def test_on_a_borrowed_gpu_only_what_can_be_sent_is_sent(word_pipe, file):
    def elsewhere(function):
        return lambda *given: pickle.loads(pickle.dumps(function(*pickle.loads(pickle.dumps(given)))))

    calls = calls_of(word_pipe, elsewhere, new_lanes())
    explanation = calls.explain(file, PASSAGE)
    assert calls.measure(file, PASSAGE, explanation) and calls.look(
        file, PASSAGE
    ).prediction == explanation.prediction == calls.predict(file, PASSAGE)


def test_another_file_under_the_same_name_is_another_question_and_a_deleted_one_is_none(word_pipe, file, done):
    calls = calls_of(word_pipe, here, new_lanes())
    first = calls.predict(file, PASSAGE)
    Image.new("RGB", (1300, 400), "red").save(file)
    assert calls.predict(file, PASSAGE) != first and done.count("opened") == 2
    Path(file).unlink()
    with pytest.raises(gr.Error, match=GONE[:30]):
        calls.predict(file, PASSAGE)


def test_what_cannot_be_asked_is_not_kept(word_pipe, tmp_path):
    broken, calls = tmp_path / "broken.png", calls_of(word_pipe, here, new_lanes())
    broken.write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(gr.Error, match="could not be read|not a picture|cannot be read"):
            calls.predict(str(broken), PASSAGE)
    recent = Recent()
    with pytest.raises(InputError):
        recent(str(broken), "", lambda: (_ for _ in ()).throw(InputError("The passage is empty.")))
    assert not recent._held and recent._alarm is None


def test_explanations_are_made_and_measured_once_for_all_visitors(word_pipe, file, tmp_path, monkeypatch):
    made, explain, measure = [], MustiPipeline.explain, MustiPipeline.faithfulness
    monkeypatch.setattr(MustiPipeline, "explain", lambda self, *given: made.append("explain") or explain(self, *given))
    monkeypatch.setattr(
        MustiPipeline,
        "faithfulness",
        lambda self, *given, **named: made.append("measure") or measure(self, *given, **named),
    )
    calls, again = calls_of(word_pipe, here, new_lanes()), str(tmp_path / "again.png")
    shutil.copy(file, again)
    first, second = calls.explain(file, PASSAGE), calls.explain(again, PASSAGE)
    assert first is second and calls.measure(file, PASSAGE, first) is calls.measure(again, PASSAGE, second)
    assert made == ["explain", "measure"]
    other = calls.explain(file, "A dog.")
    assert other.asked != first.asked and made.count("explain") == 2
    with pytest.raises(gr.Error, match="another picture"):  # what is kept of a pair says nothing of another
        calls.measure(file, PASSAGE, other)


def test_few_are_kept_and_the_longest_unused_goes_first(file):
    asked, recent = [], Recent()

    def ask(passage: str) -> str:
        return recent(file, passage, lambda: asked.append(passage) or passage)

    for number in range(MOST):
        ask(str(number))
    assert ask("0") == "0" and asked.count("0") == 1
    ask("one more")
    assert len(recent._held) == MOST
    ask("0"), ask("1")
    assert asked.count("0") == 1 and asked.count("1") == 2
    recent._alarm.cancel()


def test_what_nobody_comes_back_to_is_forgotten_also_where_nobody_comes(file, monkeypatch):
    monkeypatch.setattr(page.recent, "KEPT", 0.4)
    threads, recent = threading.active_count(), Recent()
    recent(file, "a", lambda: "a")
    time.sleep(0.25)
    recent(file, "b", lambda: "b")
    time.sleep(0.25)
    recent(file, "c", lambda: "c")
    assert [key[1] for key in recent._held] == ["b", "c"]
    deadline = time.monotonic() + 10
    while recent._held and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not recent._held and recent._alarm is None and Path(file).exists()
    assert threading.active_count() <= threads + 1, "an alarm for each question"
