"""The gates by their equations, and what each can and cannot do."""

import pytest
import torch
import torch.nn.functional as F

from musti_model import MustiModel
from musti_model.fusion import Met, Words, place_weights
from musti_model.image_tower import ImageTokens
from tests.conftest import GATES, tiny_config, tiny_model
from tests.test_model import inputs


def normalised(raw: torch.Tensor) -> torch.Tensor:
    return (raw - raw.mean()) / (raw.var(unbiased=False) + 1e-5).sqrt()


def met_by(image: torch.Tensor, opening: float = 1.0) -> Met:
    return Met(image, None, None, torch.full(image.shape[:2], opening))


def test_place_weights_by_hand():
    # two inner positions over three places: each covers one and a half
    w = place_weights(4, torch.tensor([3]), 4)[0]
    expected = torch.tensor([[1, 0, 0, 0], [0, 2 / 3, 1 / 3, 0], [0, 0, 1 / 3, 2 / 3], [0, 0, 0, 0]])
    assert torch.allclose(w, expected, atol=1e-6)
    assert torch.allclose(place_weights(17, torch.tensor([17]), 17)[0], torch.eye(17), atol=1e-6)
    w = place_weights(17, torch.tensor([5, 40]), 40)
    assert torch.allclose(w.sum(-1), torch.tensor([[1.0] * 5 + [0.0] * 35, [1.0] * 40]), atol=1e-5)
    assert (w[0, :5].sum(0) > 0).all()  # a short passage still meets the whole picture


def test_the_scalar_gate_by_hand():
    model = MustiModel(tiny_config())
    with torch.no_grad():
        model.fusion.scalars.weight.copy_(torch.tensor([[2.0, 0.5]]))
        model.fusion.scalars.bias.fill_(1.0)
    text, image = torch.zeros(1, 1, 32), torch.zeros(1, 1, 32)
    text[0, 0, 0], image[0, 0, 1] = 4.0, 3.0
    raw = torch.full((32,), 1.0)  # bias
    raw[0], raw[1] = 4 * 0.5 + 4 + 1, 3 * 2 + 1  # w_text T + T + b ; w_image I + b
    assert torch.allclose(model.fusion.fuse(text, met_by(image))[0, 0], normalised(raw), atol=1e-5)
    raw[1] = 3 * 2 * 0.5 + 1
    assert torch.allclose(model.fusion.fuse(text, met_by(image), opened=0.5)[0, 0], normalised(raw), atol=1e-5)
    raw[1] = 1.0
    for shut in (model.fusion.fuse(text, None), model.fusion.fuse(text, met_by(image), "shut")):
        assert torch.allclose(shut[0, 0], normalised(raw), atol=1e-5)
    share = model.fusion.shares(Words(text, torch.ones(1, 1)), met_by(image))
    assert share.item() == pytest.approx(2 * 3 / (2 * 3 + 1.5 * 4))  # norms of w_image I and (1 + w_text) T
    # Of each word by itself, however small what it meets is; and w_text T + T + b before the LayerNorm, which would
    # hide b.
    two = torch.cat([text, 2 * text], dim=1) / 1e3, torch.cat([image, image], dim=1) / 1e3
    shares = model.fusion.shares(Words(two[0], torch.ones(1, 2)), met_by(two[1]))
    assert shares[0].tolist() == pytest.approx([6 / (6 + 6), 6 / (6 + 12)]) and torch.allclose(
        model.fusion.base(text), 1.5 * text + 1
    )


@pytest.mark.parametrize("gate", ["word", "linear"])
def test_a_gate_of_words_by_hand(gate):
    fusion = tiny_model(**GATES[gate]).fusion
    text, image = torch.randn(1, 1, 32), torch.randn(1, 1, 32)
    through = fusion.pass_on.weight @ image[0, 0]
    for state, opened in (("learned", 0.25), ("open", 1.0), ("shut", 0.0)):
        assert torch.allclose(
            fusion.fuse(text, met_by(image, 0.25), state)[0, 0], normalised(text[0, 0] + opened * through), atol=1e-5
        )
    assert fusion.shares(Words(text, torch.ones(1, 1)), met_by(image, 0.25)).item() == 0.25


def test_meeting_by_content_by_hand():
    """Two words, three places; the common space is the identity, tau 2."""
    model = MustiModel(tiny_config(gate="word", meeting="content"))
    fusion = model.fusion
    tokens, read = torch.zeros(1, 4, 32), torch.zeros(1, 2, 32)
    for place, axis in ((1, 0), (2, 1), (3, 2)):
        tokens[0, place, axis] = 3.0
    read[0, 0, 0], read[0, 1, 5] = 2.0, 1.0  # the first looks like the first place, the second like none
    with torch.no_grad():
        fusion.space.tau.fill_(2.0)
        fusion.alpha.fill_(4.0)
        fusion.beta.fill_(-1.0)
    met = fusion.meet(
        ImageTokens(tokens, (1, 3)), Words(torch.zeros(1, 2, 32), torch.ones(1, 2, dtype=torch.long), read)
    )
    e = torch.tensor([2.0, 0.0, 0.0]).exp()
    weights = e / e.sum()
    assert torch.allclose(
        met.weights[0], torch.stack([F.pad(weights, (1, 0)), torch.tensor([0, 1 / 3, 1 / 3, 1 / 3])]), atol=1e-6
    )
    assert torch.allclose(met.agreement[0], torch.tensor([weights[0], 0.0]), atol=1e-6)
    assert torch.allclose(met.image[0], met.weights[0] @ tokens[0], atol=1e-6)
    assert torch.allclose(met.opening[0], torch.sigmoid(torch.tensor([4 * weights[0] - 1, -1.0])), atol=1e-6)


def test_only_a_product_tells_whether_word_and_places_agree():
    """For two words and two pictures, a linear gate's logits add up crosswise; the word gate's do not."""

    def crosswise(gate: str) -> float:
        fusion = tiny_model(**GATES[gate]).fusion
        torch.manual_seed(3)
        words, pictures = torch.randn(2, 1, 1, 32), torch.randn(2, 1, 2, 32)  # one place each
        logit = [
            [
                fusion.meet(ImageTokens(p, (1, 1)), Words(w, torch.ones(1, 1), w)).opening.logit().item()
                for p in pictures
            ]
            for w in words
        ]
        return abs(logit[0][0] + logit[1][1] - logit[0][1] - logit[1][0])

    assert crosswise("linear") < 1e-4 and crosswise("word") > 0.05


@pytest.mark.parametrize("gate", GATES)
def test_each_word_meets_the_picture_once(gate):
    model = tiny_model(**GATES[gate])
    images, ids, mask = inputs()
    inside = model(images, ids, mask, return_internals=True).internals
    for name, met in inside.met.items():
        assert torch.allclose(met.weights.sum(-1)[mask.bool()], torch.ones(int(mask.sum())), atol=1e-5)
        assert (
            (met.opening.min() < met.opening.max()) == model.fusion.by_word
            and met.opening.min() >= 0
            and met.opening.max() <= 1
        )
        shares = inside.shares[name][mask.bool()]
        assert shares.min() > 0 and shares.max() < 1


@pytest.mark.parametrize("gate", ["word", "word by place"])
def test_the_opening_by_hand(gate):
    """alpha times the agreement, beta, and the word's own score, whatever the picture."""
    fusion = tiny_model(**GATES[gate]).fusion
    torch.manual_seed(4)
    read, image = torch.randn(1, 3, 32), ImageTokens(torch.randn(1, 5, 32), (2, 2))
    met = fusion.meet(image, Words(torch.randn(1, 3, 32), torch.ones(1, 3, dtype=torch.long), read))
    p, q = (
        F.normalize(side(x), dim=-1)
        for side, x in ((fusion.space.word, read[0]), (fusion.space.place, image.tokens[0, 1:]))
    )
    if gate == "word":
        agreement = ((9 * p @ q.T).softmax(-1) * (p @ q.T)).sum(-1)  # tau is 9
    else:
        agreement = (p * F.normalize(fusion.space.place(met.image[0]), dim=-1)).sum(-1)
    own = read[0] @ fusion.word_score.weight[0]
    assert own.abs().min() > 0.05
    assert torch.allclose(met.agreement[0], agreement, atol=1e-5)
    assert torch.allclose(met.opening[0], torch.sigmoid(6 * agreement - 0.5 + own), atol=1e-5)


def test_the_linear_gates_opening_by_hand():
    fusion = tiny_model(**GATES["linear by place"]).fusion
    torch.manual_seed(6)
    text, tokens = torch.randn(1, 3, 32), torch.randn(1, 3, 32)
    met = fusion.meet(ImageTokens(tokens, (1, 2)), Words(text, torch.ones(1, 3, dtype=torch.long)))
    v, c = fusion.classifier.weight[0], fusion.classifier.bias
    # each meets one token: as many places as words
    assert torch.allclose(met.opening[0], torch.sigmoid(text[0] @ v[:32] + tokens[0] @ v[32:] + c), atol=1e-5)
    assert met.agreement is None and not fusion.reads


def test_how_gates_start():
    """The published one lets in a little at every word; the others pass on what they met, half open: the word gate
    where word and places agree by half."""
    scalar, word, linear = (MustiModel(tiny_config(**GATES[g])).fusion for g in ("scalar", "word", "linear"))
    assert scalar.scalars.weight.tolist() == [[pytest.approx(0.05), 0.0]] and scalar.scalars.bias.item() == 0
    assert (
        torch.equal(word.open_at(torch.tensor([0.5, 0.75])), torch.tensor([0.0, 5.0]))
        and not word.word_score.weight.any()
        and word.space.tau == 16
    )
    for matrix in (word.pass_on, linear.pass_on, word.space.word, word.space.place, linear.space.word):
        assert torch.equal(matrix.weight, torch.eye(32)) and (matrix.bias is None or not matrix.bias.any())
    assert 0 < linear.classifier.weight.abs().max() <= 0.1 / 64**0.5 and linear.classifier.bias.item() == 0


def test_without_a_gate_nothing_of_the_picture_is_shared():
    fusion, text = tiny_model(gate="none").fusion, torch.randn(1, 3, 32)
    words = Words(text, torch.ones(1, 3, dtype=torch.long))
    met = fusion.meet(ImageTokens(torch.randn(1, 3, 32), (1, 2)), words)
    assert (
        torch.equal(fusion.fuse(text, met), text)
        and fusion.shares(words, met).tolist() == [[0, 0, 0]]
        and met.opening.tolist() == [[1, 1, 1]]
    )
    assert met.image.shape == (1, 3, 32) and torch.allclose(met.weights[0], torch.eye(3))
    for without in (fusion, tiny_model(**GATES["linear by place"]).fusion):
        assert not without.reads and without.word_space(text) is text and without.place_space(text) is text


@pytest.mark.parametrize(
    ("padding", "position", "expected"), [("carry", 3, [0, 0, 0, 1]), ("mask", 2, [0, 0, 1 / 3, 2 / 3])]
)
def test_where_padding_is_carried_it_meets_the_lower_part(padding, position, expected):
    """Three places, four positions of which the last is padding: it meets the last place, or else the last wordpiece
    meets the lower half."""
    fusion, expected = tiny_model(padding=padding).fusion, torch.tensor(expected, dtype=torch.float)
    tokens = torch.randn(1, 4, 32)
    met = fusion.meet(ImageTokens(tokens, (1, 3)), Words(torch.randn(1, 4, 32), torch.tensor([[1, 1, 1, 0]])))
    assert torch.allclose(met.weights[0, position], expected, atol=1e-6)
    assert torch.allclose(met.image[0, position], expected @ tokens[0], atol=1e-6)


def test_nothing_shared_of_nothing():
    zero = torch.zeros(1, 1, 32)
    assert tiny_model().fusion.shares(Words(zero, torch.ones(1, 1)), met_by(zero)).item() == 0


def test_words_look_in_full_precision_whatever_the_rest_has():
    """The gate is steep; half precision would be seen in it."""
    space = tiny_model(**GATES["word"]).fusion.space
    torch.manual_seed(7)
    queries, tokens = torch.randn(1, 4, 32), torch.randn(1, 6, 32)
    exact = space.look(queries, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        rough = space.look(queries, tokens)
    assert all(a.dtype == torch.float32 and torch.equal(a, b) for a, b in zip(exact, rough, strict=True))


def test_states_that_were_not_read_cannot_be_asked_for():
    with pytest.raises(ValueError, match="MustiModel.words"):
        tiny_model(**GATES["word"]).fusion.meet(
            ImageTokens(torch.zeros(1, 3, 32), (1, 2)), Words(torch.zeros(1, 3, 32), torch.ones(1, 3))
        )


def test_the_whole_picture_is_no_place_to_look_at():
    """A word would rather look at a whole that is exactly what it means; it may not."""
    space = tiny_model(**GATES["word"]).fusion.space
    torch.manual_seed(5)
    tokens, queries = torch.randn(1, 5, 32), torch.randn(1, 2, 32)
    weights, agreement = space.look(queries, tokens)
    with torch.no_grad():
        tokens[0, 0] = torch.linalg.solve(space.place.weight, queries[0, 0] - space.place.bias)
    other, same = space.look(queries, tokens)
    assert torch.equal(weights, other) and torch.equal(agreement, same)
    assert (
        weights.shape == (1, 2, 5) and not weights[..., 0].any() and torch.allclose(weights.sum(-1), torch.ones(1, 2))
    )


def test_words_cannot_look_for_places_that_tokens_have_not():
    fusion = tiny_model(**GATES["word"]).fusion
    words = Words(torch.zeros(1, 3, 32), torch.ones(1, 3), torch.zeros(1, 3, 32))
    with pytest.raises(ValueError, match="published axes"):
        fusion.meet(ImageTokens(torch.zeros(1, 32, 32), None), words)


@pytest.mark.parametrize("gate", ["word", "linear"])
def test_a_passage_is_read_once_whatever_the_number_of_pictures(gate):
    """One reading for all pictures, then one batch for all branches and pictures."""
    model = tiny_model(**GATES[gate])
    images, ids, mask = inputs(3)
    rows = []
    model.text.encoder.layer[0].register_forward_hook(lambda m, i, o: rows.append(len(i[0])))
    model.match(model.encode_images(images), ids[:1], mask[:1])
    assert rows == [1, 6]


@pytest.mark.parametrize("gate", ["word", "linear by place"])
def test_a_gate_of_words_learns_from_its_own_loss(gate):
    from training.loop.losses import gate_loss

    model = tiny_model(**GATES[gate])
    images, ids, mask = inputs()
    words, encoded = model.words(ids, mask), model.encode_images(images)
    labels = torch.where(mask == 1, 2, -100)
    labels[:, 3] = 1
    gate_loss(model.fusion.meet(encoded["vit"], words).opening, labels).backward()
    grown = {n for n, p in model.fusion.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert ({"alpha", "beta", "word_score.weight"} if gate == "word" else {"classifier.weight"}) <= grown
