"""Every number that the page shows, worked out again: with numpy, from the weights and the answers to altered pairs."""

import numpy as np
import pytest
import torch

from musti_model import Alteration
from tests.conftest import BIAS, GATES, PASSAGE, SCALE, VOTES, VOTING_BIAS, pipeline

TEMPERATURE, THRESHOLD, NAMING_SCALE = 1.6, 0.37, 10.0  # of the tiny model
BRANCHES = ("vit", "resnet")


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def plain(tensor):
    return tensor.detach().numpy().astype(float)


def linear(layer, x):
    return x @ plain(layer.weight).T + (0 if layer.bias is None else plain(layer.bias))


@pytest.fixture(scope="module", params=["scalar", "word"])
def pipe(request, tokenizer):
    return pipeline(tokenizer, **GATES[request.param])


@pytest.fixture(scope="module")
def asked(pipe, picture):
    return pipe.ask(picture, PASSAGE)


@pytest.fixture(scope="module")
def shown(pipe, asked):
    return pipe.explain(asked)


@pytest.fixture(scope="module")
def measured(pipe, asked, shown):
    return pipe.faithfulness(asked, explanation=shown)


def logit_of(pipe, asked, positions) -> float:
    """Of the passage cut down to some wordpieces, asked anew."""
    ids = asked.input_ids[:, sorted(positions)]
    with torch.no_grad():
        return float(pipe.model(asked.images, ids, torch.ones_like(ids)).logits)


def test_the_answer_is_the_votes_and_the_constant(pipe, asked, shown):
    answer = shown.prediction
    with torch.no_grad():
        output = pipe.model(asked.images, asked.input_ids, asked.mask, return_internals=True)
    constant = SCALE * VOTING_BIAS + BIAS
    for k, name in enumerate(BRANCHES):
        cosine = unit(plain(output.text_vectors[0, k])) @ unit(plain(output.internals.image_vectors[name][0]))
        assert answer.similarities[name] == pytest.approx(cosine, abs=1e-5)
        assert answer.votes[name] == pytest.approx(SCALE * VOTES[k] * cosine, abs=1e-4)
    assert answer.vote_bias == pytest.approx(constant, abs=1e-5)
    assert answer.logit == pytest.approx(sum(answer.votes.values()) + constant, abs=1e-5)
    assert answer.probability == pytest.approx(sigmoid(answer.logit / TEMPERATURE), abs=1e-6)
    assert answer.threshold == THRESHOLD and (answer.label == "YES") == (answer.probability >= THRESHOLD)


def test_the_votes_differ_as_their_weights_do(shown):
    """Or a wrong weight would not be seen."""
    slopes = [shown.prediction.votes[n] / shown.prediction.similarities[n] for n in BRANCHES]
    assert slopes == pytest.approx([SCALE * v for v in VOTES[:2]], rel=1e-4) and slopes[1] < 0 < slopes[0]


def test_an_image_vector_is_the_places_by_their_weights(pipe, asked):
    """Linear over the text's full grid: each of its positions brings the share of the places that it covers."""
    weight, length = plain(pipe.model.final_projection.weight)[0], pipe.config.text_length
    for name in BRANCHES:
        tokens = plain(asked.encoded[name].tokens[0])
        places = len(tokens) - 1
        edges = np.linspace(0, places, length)  # 1 .. length - 1 each cover an equal part of the places
        own = weight[0] * tokens[0]
        for t in range(1, length):
            overlap = np.clip(
                np.minimum(edges[t], np.arange(1, places + 1)) - np.maximum(edges[t - 1], np.arange(places)), 0, None
            )
            own = own + weight[t] * (overlap / overlap.sum()) @ tokens[1:]
        with torch.no_grad():
            assert np.allclose(plain(pipe.model.image_vector(asked.encoded[name]))[0], own, atol=1e-4)


def test_what_is_seen_and_read(pipe, asked, shown):
    """Probabilities of objects: softmax of scaled cosines beside the logit of none; of a picture the mean of its
    branches, of a word that of its pieces."""
    model, objects = pipe.model, pipe.objects
    known = unit(plain(model.prototypes))
    seen = []
    for name in BRANCHES:
        tokens = plain(asked.encoded[name].tokens[0])
        if pipe.config.gate == "word":
            cosines = known @ unit(linear(model.fusion.space.place, tokens[1:])).T  # [objects, places]
            cosines = (softmax(float(model.fusion.space.tau) * cosines) * cosines).sum(-1)
        else:
            cosines = known @ unit(plain(model.image_vector(asked.encoded[name]))[0])
        seen.append(softmax(np.append(NAMING_SCALE * cosines, float(model.nothing_logit))))
    expected = np.mean(seen, axis=0)
    assert dict(shown.prediction.objects_in_picture) == pytest.approx(dict(zip(objects, expected)), abs=2e-4)
    assert [o for o, _ in shown.prediction.objects_in_picture] == [objects[i] for i in np.argsort(-expected[:-1])]


def test_the_gate_opens_as_its_equation_says(pipe, asked, shown):
    read, fusion = asked.read, pipe.model.fusion
    for name in BRANCHES:
        gate, tokens = shown.gates[name], plain(asked.encoded[name].tokens[0])
        if pipe.config.gate == "word":
            states = plain(read.states[0])
            # the whole picture is no place
            cosines = unit(linear(fusion.space.word, states)) @ unit(linear(fusion.space.place, tokens[1:])).T
            weights = softmax(float(fusion.space.tau) * cosines)
            agreement = (weights * cosines).sum(-1)
            opening = sigmoid(
                float(fusion.alpha) * agreement + float(fusion.beta) + linear(fusion.word_score, states)[:, 0]
            )
            by_word = np.stack([weights[list(p)].mean(0) for p in asked.pieces])
        else:
            n, places = asked.length, len(tokens) - 1
            edges = np.linspace(0, places, n)
            overlap = np.array(
                [
                    np.clip(
                        np.minimum(edges[t], np.arange(1, places + 1)) - np.maximum(edges[t - 1], np.arange(places)),
                        0,
                        None,
                    )
                    for t in range(1, n)
                ]
            )
            weights = np.concatenate([np.zeros((1, places)), overlap / overlap.sum(-1, keepdims=True)])
            met = np.concatenate([tokens[:1], weights[1:] @ tokens[1:]])
            (w_image, w_text), text = plain(fusion.scalars.weight)[0], plain(read.text[0])
            image_norm, text_norm = np.linalg.norm(w_image * met, axis=-1), np.linalg.norm((1 + w_text) * text, axis=-1)
            opening = image_norm / (image_norm + text_norm)
            by_word = np.stack([weights[list(p)].mean(0) for p in asked.pieces])
        assert gate.words == pytest.approx([opening[list(p)].mean() for p in asked.pieces], abs=1e-4)
        assert all(0 < g < 1 for g in gate.words) and np.ptp(gate.words) > 1e-3
        assert gate.meeting.shape[1:] == asked.encoded[name].grid and np.allclose(
            gate.meeting.sum((1, 2)), 1, atol=1e-5
        )
        assert np.allclose(gate.meeting.reshape(len(by_word), -1), by_word / by_word.sum(-1, keepdims=True), atol=1e-4)
        on_picture = shown.maps.grids[f"gate:{name}"].numpy().ravel()
        if pipe.config.gate == "word":
            assert np.allclose(on_picture, np.array(gate.words) @ gate.meeting.reshape(len(by_word), -1), atol=1e-4)
        else:
            assert np.allclose(on_picture, opening @ weights / weights.sum(0), atol=1e-4)


def test_the_shut_gate_is_the_passage_read_without_the_picture(pipe, asked, shown):
    with torch.no_grad():
        alone = pipe.model.text_vectors_of(pipe.model.fusion.norm(pipe.model.fusion.base(asked.read.text)), asked.mask)[
            0
        ]
        images = [pipe.model.image_vector(asked.encoded[n])[0] for n in BRANCHES]
    votes = [SCALE * v * (unit(plain(alone)) @ unit(plain(i))) for v, i in zip(VOTES, images)]
    assert list(shown.shut.votes.values()) == pytest.approx(votes, abs=1e-4)
    probability = sigmoid((sum(votes) + SCALE * VOTING_BIAS + BIAS) / TEMPERATURE)
    assert shown.shut.probability == pytest.approx(probability, abs=1e-5)
    assert pipe.what_if(asked, alteration=Alteration(gate="shut")) == pytest.approx(probability, abs=1e-5)


def test_the_gates_effect_is_complete(shown):
    """Words and the rest, and patches and the whole, add up to what opening the gate changes in the branch's vote."""
    for name in BRANCHES:
        effect = shown.gate_effect[name]
        change = shown.prediction.votes[name] - shown.shut.votes[name]
        assert effect.total == pytest.approx(change, abs=1e-4) and abs(change) > 1e-3
        assert effect.error <= 0.01
        for parts in (np.sum(effect.words) + effect.rest, effect.patches.sum() + effect.whole):
            assert abs(parts - change) <= 0.011 * abs(change) + 1e-4
        assert effect.links.shape == (len(shown.words), *effect.patches.shape)
        assert np.allclose(effect.links.sum((1, 2)), effect.words, atol=1e-4)


def test_evidence_of_words_is_in_units_of_the_logit(pipe, asked, shown):
    """Half of what the word's absence takes from the logit, and half of what its presence adds to a passage without
    words."""
    everything, rest = set(range(asked.length)), set(asked.rest)
    whole, nothing = logit_of(pipe, asked, everything), logit_of(pipe, asked, rest)
    assert whole == pytest.approx(shown.prediction.logit, abs=1e-4)
    for value, pieces in zip(shown.evidence.words, asked.pieces, strict=True):
        without, alone = logit_of(pipe, asked, everything - set(pieces)), logit_of(pipe, asked, rest | set(pieces))
        assert value == pytest.approx(((whole - without) + (alone - nothing)) / 2, abs=1e-4)
    assert np.allclose(
        shown.evidence.words, np.sum([shown.evidence.branches[n].words for n in BRANCHES], axis=0), atol=1e-5
    )


def test_evidence_of_regions_is_in_units_of_the_logit(pipe, asked, shown):
    """Hiding the cells that speak most for YES lowers the logit, hiding those that speak most against it raises it, and
    the branches' maps add up."""
    parts = [shown.evidence.branches[n].grid.numpy() for n in BRANCHES]
    assert np.allclose(shown.evidence.grid.numpy(), np.sum(parts, axis=0), atol=1e-5)
    order = [divmod(int(i), 8) for i in np.argsort(shown.evidence.grid.numpy().ravel())]
    against, whole, favour = (
        TEMPERATURE * np.log(p / (1 - p))
        for p in (pipe.what_if(asked, alteration=Alteration(blanked=cells)) for cells in (order[:16], [], order[-16:]))
    )
    assert favour < whole < against and whole == pytest.approx(shown.prediction.logit, abs=1e-3)


def test_a_left_out_branch_hands_its_weight_on_by_weight(pipe, asked, shown):
    for kept, left in (BRANCHES, BRANCHES[::-1]):
        weight = sum(map(abs, VOTES[:2])) / abs(VOTES[BRANCHES.index(kept)])
        expected = sigmoid((shown.prediction.votes[kept] * weight + shown.prediction.vote_bias) / TEMPERATURE)
        assert pipe.what_if(asked, alteration=Alteration(without=[left])) == pytest.approx(expected, abs=1e-5)


def test_deletion_and_insertion_of_words(pipe, asked, shown, measured):
    """The area under the probability of the answer, words struck out by their evidence, and put back."""
    sign = 1 if shown.prediction.label == "YES" else -1
    order, count = np.argsort(-sign * np.array(shown.evidence.words), kind="stable"), len(shown.words)

    def area(kept_words) -> float:
        curve = []
        for kept in kept_words:
            probability = sigmoid(
                logit_of(pipe, asked, {*asked.rest, *(p for w in kept for p in asked.pieces[w])}) / TEMPERATURE
            )
            curve.append(probability if sign > 0 else 1 - probability)
        return float(np.mean((np.array(curve)[1:] + np.array(curve)[:-1]) / 2))

    cuts = [round(count * step / 8) for step in range(9)]
    assert measured["words"].deletion == pytest.approx(area([order[c:] for c in cuts]), abs=1e-4)
    assert measured["words"].insertion == pytest.approx(area([order[:c] for c in cuts]), abs=1e-4)
    assert 0 <= measured["words"].chance <= 1


def test_what_is_missing_for_a_yes(tokenizer, picture):
    pipe = pipeline(tokenizer, threshold=1.0)
    for name, probability in pipe.explain(picture, PASSAGE).evidence.missing:
        assert probability == pytest.approx(sigmoid(pipe(picture, f"{name}. {PASSAGE}").logit / TEMPERATURE), abs=1e-5)
