"""What an explanation carries."""

import json

import numpy as np
import pytest
from PIL import Image

from musti_model import InputError
from musti_model.frames import shrunk
from musti_model.results import Gate
from tests.conftest import GATES, PASSAGE, pipeline


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_an_explanation_carries_evidence_in_the_pictures_frame(tokenizer, picture, gate):
    pipe = pipeline(tokenizer, **GATES[gate])
    e = pipe.explain(picture, PASSAGE)
    assert len(e.evidence.words) == len(e.words) and e.evidence.map.shape == (48, 64)
    assert np.allclose(np.sum([b.words for b in e.evidence.branches.values()], axis=0), e.evidence.words, atol=1e-5)
    assert set(e.gate_effect) == {"vit", "resnet"}
    assert e.fit(32).evidence.map.shape == (24, 32)
    plain = json.loads(json.dumps(e.manifest()))
    assert (
        plain["evidence"]["words"] == e.evidence.words
        and plain["gate_effect"]["vit"]["total"] == e.gate_effect["vit"].total
    )
    assert pipe.explain(picture, PASSAGE, evidence=False).evidence is None


@pytest.mark.parametrize("gate", ["scalar", "word", "none"])
def test_the_manifest_holds_everything_under_its_name(tokenizer, picture, gate):
    e = pipeline(tokenizer, **(GATES | {"none": {"gate": "none"}})[gate]).explain(picture, PASSAGE)
    p, plain = e.prediction, json.loads(json.dumps(e.manifest()))
    answer = {name: getattr(p, name) for name in ("label", "probability", "threshold", "similarities", "unsure")}
    answer |= {"notices": [str(n) for n in p.notices], "logit": p.logit, "votes": p.votes, "vote_bias": p.vote_bias}
    answer |= {
        "objects_in_picture": [[*pair] for pair in p.objects_in_picture],
        "objects_in_passage": [[*pair] for pair in p.objects_in_passage],
    }
    assert plain.pop("prediction") == answer
    gates = plain.pop("gates")
    assert set(gates) == set(e.gates) == (set() if gate == "none" else {"vit", "resnet"})
    for name, kept in gates.items():
        assert set(kept) == {"words", "meeting"} and kept["words"] == e.gates[name].words
        assert np.allclose(kept["meeting"], e.gates[name].meeting, atol=5.1e-5)
    effects = plain.pop("gate_effect")
    assert set(effects) == set(gates)
    for name, kept in effects.items():
        effect = e.gate_effect[name]
        one = {key: getattr(effect, key) for key in ("words", "rest", "whole", "total", "error")}
        assert kept == one | {"patches": effect.patches.tolist()}
    v = e.evidence
    branches = {n: {"words": b.words, "grid": b.grid.tolist()} for n, b in v.branches.items()}
    missing = [{"object": name, "probability": probability} for name, probability in v.missing]
    evidence = {"words": v.words, "grid": v.grid.tolist(), "methods": v.methods, "missing": missing}
    assert plain.pop("evidence") == evidence | {"branches": branches}
    shut = {"probability": e.shut.probability, "votes": e.shut.votes} if e.shut else None
    assert (shut is None) == (gate == "none") and plain.pop("shut") == shut
    w = e.gate_weights
    assert (w is None) == (gate != "scalar")
    assert plain.pop("gate_weights") == (w and {"w_image": w.w_image, "w_text": w.w_text, "bias": w.bias})
    assert plain == {
        "passage": PASSAGE,
        "words": e.words,
        "word_spans": [[*span] for span in e.word_spans],
        "gate": gate,
        "word_attention": e.word_attention,
        "settings": e.settings,
    }


def test_a_gate_whose_words_meet_no_places():
    assert Gate([0.5], None).to_json() == {"words": [0.5], "meeting": None}


def test_maps_and_evidence_are_saved_under_their_names(tokenizer, picture, tmp_path):
    e = pipeline(tokenizer, **GATES["word"]).explain(picture, PASSAGE)
    maps = json.loads((e.save(tmp_path) / "manifest.json").read_text())["maps"]
    evidence = {"evidence": e.evidence} | {f"evidence:{name}": e.evidence.branches[name] for name in ("vit", "resnet")}
    assert set(maps) == set(e.maps) | set(evidence)
    for name, found in evidence.items():
        assert np.array_equal(np.load(tmp_path / maps[name]["values"]), found.map)


@pytest.mark.parametrize(
    ("side", "size"), [(64, (64, 48)), (100, (64, 48)), (63, (63, 47)), (32, (32, 24)), (1, (1, 1))]
)
def test_a_picture_is_never_enlarged(picture, side, size):
    shown = shrunk(picture, side)
    assert shown.size == size and (shown is picture) == (size == picture.size)


@pytest.mark.parametrize(("threshold", "missing"), [(0.0, 0), (1.0, 3)])
def test_what_is_missing_is_told_for_a_no_only(tokenizer, picture, threshold, missing):
    pipe = pipeline(tokenizer, threshold=threshold)
    e = pipe.explain(picture, PASSAGE)
    assert len(e.evidence.missing) == missing
    for name, probability in e.evidence.missing:
        assert probability == pytest.approx(pipe(picture, f"{name}. {PASSAGE}").probability, abs=1e-5)


def test_a_large_model_on_a_cpu_gets_evidence_from_gradients(pipe, picture, monkeypatch):
    assert pipe.explain(picture, PASSAGE).evidence.methods == {"words": "occlusion", "regions": "in place and close up"}
    monkeypatch.setattr("musti_model.pipeline.LARGE", 1000)
    e = pipe.explain(picture, PASSAGE)
    assert (
        not pipe.many_passes
        and e.evidence.methods == {"words": "relevance", "regions": "relevance"}
        and e.evidence.map.shape == (48, 64)
    )


def test_a_question_that_fits_a_page_keeps_no_large_picture(pipe):
    question = pipe.ask(Image.effect_noise((1300, 400), 80).convert("RGB"), PASSAGE)
    small = question.fit(100)
    assert (
        small.picture.size == (100, 31)
        and question.picture.size == (1300, 400)
        and question.fit(5000).picture is question.picture
    )
    assert (
        small.encoded is question.encoded
        and pipe(small) == pipe(question)
        and small.fingerprint != question.fingerprint
    )
    with pytest.raises(InputError, match="another picture"):
        pipe.faithfulness(small, explanation=pipe.explain(question))
