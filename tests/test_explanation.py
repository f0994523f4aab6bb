"""What an explanation carries."""

import json

import numpy as np
import pytest

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
