"""How faithful an explanation is: deletion and insertion by hand, and whose explanation it is."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import InputError
from musti_model.methods import OCCLUSION, combined, hiding, total
from musti_model.methods import deletion_insertion as fa
from tests.conftest import GATES, PASSAGE, pipeline


def additive(parts):
    return lambda kept: np.array([sum(parts[k] for k in row) for row in kept])


def test_deletion_and_insertion_of_an_additive_score_by_hand(monkeypatch):
    monkeypatch.setattr(fa, "STEPS", 2)
    # Order 1, 0: deletion 1, .25, 0 -> trapezoids (.625 + .125) / 2; insertion 0, .75, 1 -> (.375 + .875) / 2.
    result = fa._measure(
        {"true": np.array([0.0, 1.0]), "false": np.array([1.0, 0.0])}, additive([0.25, 0.75]), "YES", seed=0
    )
    assert (result["true"].deletion, result["true"].insertion) == (0.375, 0.625)
    assert (result["false"].deletion, result["false"].insertion) == (0.625, 0.375)
    assert 0.375 <= result["true"].random_deletion <= 0.625


def test_a_no_is_explained_by_what_speaks_against(monkeypatch):
    monkeypatch.setattr(fa, "STEPS", 2)
    # P(NO) is additive: unit 0 holds .5, unit 1 .25. Deleting 0 first: .75, .25, 0; inserting it first: 0, .5, .75.
    no = {(0, 1): 0.75, (0,): 0.5, (1,): 0.25, (): 0.0}
    result = fa._measure(
        {"true": np.array([-2.0, -1.0])}, lambda kept: np.array([1 - no[k] for k in kept]), "NO", seed=0
    )["true"]
    assert (result.deletion, result.insertion) == pytest.approx(((0.5 + 0.125) / 2, (0.25 + 0.625) / 2))


def test_the_true_order_beats_every_random_one():
    parts = np.arange(16) / 120
    result = fa._measure({"true": parts, "upside down": -parts}, additive(parts), "YES", seed=0)
    assert result["true"].chance == 0 and result["upside down"].chance == 1
    assert result["true"].deletion < result["true"].random_deletion < result["upside down"].deletion


def test_an_order_as_good_as_any_other_is_no_better_than_chance():
    """Where it does not matter what goes first, all random orders do as well."""
    result = fa._measure({"any": np.arange(8.0)}, lambda kept: np.array([len(k) / 8 for k in kept]), "YES", seed=0)[
        "any"
    ]
    assert result.chance == 1 and result.deletion == result.random_deletion


def test_every_explanation_of_a_pair_is_measured(pipe, picture, monkeypatch):
    explanation = pipe.explain(picture, PASSAGE)
    measured = pipe.faithfulness(picture, PASSAGE, explanation)
    branches = ["vit", "resnet"]
    assert set(measured) == {
        "words",
        "regions",
        *[f"{kind}:{b}" for kind in ("words", "regions", "attention", "effect") for b in branches],
        *explanation.maps,
    }
    given = {}
    monkeypatch.setattr("musti_model.explain.of_regions", lambda _question, maps, _answer: given.update(maps) or {})
    for answer, sign in (("YES", 1), ("NO", -1)):
        changed = dataclasses.replace(explanation, prediction=dataclasses.replace(explanation.prediction, label=answer))
        pipe.faithfulness(picture, PASSAGE, changed)
        # For NO what speaks against YES goes first, yet what is looked at most still does.
        assert torch.equal(given["regions"], explanation.evidence.grid) and torch.equal(
            given["rollout:vit"], sign * explanation.maps.grids["rollout:vit"]
        )


@pytest.mark.parametrize("gate", ["scalar", "word"])
def test_an_explanation_of_another_pair_is_refused(tokenizer, picture, gate):
    pipe = pipeline(tokenizer, **GATES[gate])
    explanation, other = pipe.explain(picture, PASSAGE), picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    question = pipe.ask(picture, PASSAGE)
    assert (
        pipe.faithfulness(question, explanation=explanation.fit(20)).keys()
        == pipe.faithfulness(picture, f" {PASSAGE} ", explanation).keys()
    )
    for image, passage in (
        (other, PASSAGE),
        (picture, "The dogs ran."),
        (picture, PASSAGE.replace("roses", "bread")),
        (picture.resize((20, 20)), PASSAGE),
    ):
        with pytest.raises(InputError, match="another picture or passage"):
            pipe.faithfulness(image, passage, explanation)
    with pytest.raises(InputError, match="evidence=True"):
        pipe.faithfulness(picture, PASSAGE, pipe.explain(picture, PASSAGE, evidence=False))
    with pytest.raises(InputError, match="no explanation"):
        pipe.faithfulness(picture, PASSAGE)


def test_faithfulness_of_words_and_regions_of_a_model(question):
    words = total(OCCLUSION.run(question))
    measured = fa.of_words(question, {"occlusion": words, "against": -words})
    assert measured["occlusion"].deletion < measured["against"].deletion
    regions = combined(hiding.run(question))
    measured = fa.of_regions(question, {"in place": regions, "against": -regions})
    assert measured["in place"].insertion > measured["against"].insertion


def test_cells_are_means():
    values = torch.zeros(16, 16)
    values[:2, :2] = 4.0
    cells = fa.to_cells(values)
    assert cells.shape == (8, 8) and cells[0, 0] == 4 and cells.sum() == 4
    assert torch.equal(fa.to_cells(torch.eye(8)), torch.eye(8))
