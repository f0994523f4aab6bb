"""The starter's stages from raw material to a folder of weights, on drawn pictures, tiny towers and a few steps."""

import hashlib
import json
import zipfile
from contextlib import nullcontext
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from musti_model import MustiPipeline
from musti_model.fusion import ScalarGate, Words
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel
from tests.wordpieces import train_tokenizer
from training.lexicon.naming import LANGUAGES, Lexicon, Mention
from training.loop.losses import FocalLoss
from training.starter import measure, stages, towers
from training.starter.drawing import (
    IGNORE,
    ROUND_CPU,
    Album,
    KeptAlbum,
    Shown,
    TextBatches,
    Texts,
    draw_pairs,
    piece_labels,
)
from training.starter.finish import calibrate_answers, finish, save_weights
from training.starter.measures import grids
from training.starter.objective import Objective
from training.starter.opening import Looked, calibrate_gate, fit_word_score, look_at_words
from training.starter.passages import Passage, load_passages
from training.starter.pictures import STORED_SIZE, Pictures, load_pictures
from training.starter.scoring import MODES, Scored, encode_pictures, score_pairs

from .conftest import tiny_config

OBJECTS = {"candle": "white", "dog": "brown", "fish": "blue"}
NAMES = {
    "en": {"candle": "candle", "dog": "dog", "fish": "fish"},
    "de": {"candle": "Kerze", "dog": "Hund", "fish": "Fisch"},
}
TINY = replace(
    stages.SMALL,
    names=stages.SMALL.names | {"count": 8, "most": 12},
    match=stages.SMALL.match | {"count": 8, "most": 8},
    each=4,
    names_rates={"text.embeddings": 0.0, "branches.resnet.backbone": 0.0},
    match_rates={"text.embeddings": 0.0, "branches.resnet.backbone": 0.0},
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Three objects, 60 pictures each, and 240 sentences that name one."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "images").mkdir()
    (folder / "corpora").mkdir()
    rng = np.random.default_rng(0)
    for name, colour in OBJECTS.items():
        with zipfile.ZipFile(folder / "images" / f"{name}.zip", "w") as archive:
            for i in range(60):
                picture = Image.fromarray(rng.integers(0, 80, (48, 48, 3), dtype=np.uint8))
                x, y = rng.integers(4, 20, 2).tolist()
                ImageDraw.Draw(picture).ellipse((x, y, x + 20, y + 20), fill=colour)
                file = BytesIO()
                picture.save(file, "PNG")
                archive.writestr(f"drawn/{i}.png", file.getvalue())
    for language, names in NAMES.items():
        lines = []
        for name in [n for n in OBJECTS for _ in range(40)]:
            words = ["".join("abcdefghij"[d] for d in rng.integers(0, 10, 5)) for _ in range(16)]
            words[int(rng.integers(16))] = names[name]
            lines.append(" ".join(words))
        (folder / "corpora" / f"odeuropa-{language}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def small(monkeypatch):
    """Few words, few pages of text; no pretrained tower to ask for doubtful words."""
    monkeypatch.setattr(stages, "doubtful_words", lambda *_: SimpleNamespace(words={}))
    monkeypatch.setattr(stages, "PAGES", 4)
    monkeypatch.setattr("training.starter.finish.PAGES", 4)
    monkeypatch.setattr("training.starter.drawing.LENGTHS", (12,))
    monkeypatch.setattr("training.starter.drawing.LENGTH_SHARES", (1.0,))
    monkeypatch.setattr("training.starter.finish.EXPLAINED", 2)


def workshop(data, work, **changes):
    pictures = load_pictures(data, work)
    torch.manual_seed(0)
    model = MustiModel(tiny_config(objects=pictures["train"].objects, gate="word", meeting="content", **changes))
    texts = (data / "corpora" / "odeuropa-en.txt").read_text().splitlines()[:60]
    tokenizer = train_tokenizer(texts, [n for names in NAMES.values() for n in names.values()], 300, 32)
    return model, stages.Workshop(data, work, pictures, model, tokenizer, workers=0)


def test_from_raw_material_to_weights(data, tmp_path, small, monkeypatch):
    work, out = tmp_path / "work", tmp_path / "out"
    model, shop = workshop(data, work)
    assert shop.objects == tuple(sorted(OBJECTS))
    frozen = {k: v.clone() for k, v in model.branches["resnet"].backbone.state_dict().items()}
    words = model.text.embeddings.word_embeddings.weight.clone()
    stages.names_stage(model, shop, work / "names", epochs=1, steps=2, recipe=TINY)
    stages.match_stage(model, shop, work / "match", epochs=1, steps=2, recipe=TINY)
    row = json.loads((work / "match" / "log.jsonl").read_text())
    assert {
        "words",
        "pictures",
        "prototypes",
        "places",
        "pairs",
        "gate",
        "pooled",
        "lost",
        "widest",
    } <= row.keys() and np.isfinite(row["loss"])
    assert all(torch.equal(v, frozen[k]) for k, v in model.branches["resnet"].backbone.state_dict().items())
    assert torch.equal(model.text.embeddings.word_embeddings.weight, words)
    metrics = finish(model, shop, data, work, out, "python -m training.starter")
    pipe = MustiPipeline.from_pretrained(out, precision="float32")
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), pipe.model.state_dict().values(), strict=True)
    )
    assert (
        pipe.objects == tuple(sorted(OBJECTS))
        and 0 < pipe(Image.new("RGB", (60, 40), "blue"), "The fish stank.").probability < 1
    )
    assert metrics["weights"] == "sha256:" + hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert (
        metrics["test"]["pairs"] % 4 == 0 and metrics["baselines"]["picture classifier + perfect word list"]["auc"] >= 0
    )
    card = (out / "README.md").read_text()
    assert (
        f"{metrics['test']['f1_macro']:.3f}" in card
        and "lost when the gate is shut" in card
        and "names never trained on, nl" in card
    )
    given = ["--data", str(data), "--weights", str(out), "--work", str(work), "--calibrate"]
    monkeypatch.setattr("sys.argv", ["measure", *given])
    monkeypatch.setattr("training.starter.measure.Workshop", lambda *_: shop)
    monkeypatch.setattr("training.starter.measure.explained", lambda *_: {})
    model.bias.data += 5
    finish_weights = save_weights(model, out)
    measure.main()
    metrics, config = json.loads((out / "metrics.json").read_text()), json.loads((out / "config.json").read_text())
    assert metrics["weights"] != finish_weights and metrics["test"]["threshold"] == config["threshold"]
    assert f"threshold {config['threshold']:.3f}" in (card := (out / "README.md").read_text()) and "--calibrate" in card


def test_a_batch_is_the_same_each_time_and_of_few_lengths(data, tmp_path, small):
    _, shop = workshop(data, tmp_path)
    batches = TextBatches(shop.mill, shop.tokenizer, shop.objects, 4, (1, 0), drills=0.5)
    a, b, other = batches[2], batches[2], batches[3]
    assert torch.equal(a.input_ids, b.input_ids) and a.seed == b.seed != other.seed
    assert a.input_ids.shape[1] % ROUND_CPU == 0 and bool((a.named <= a.touched).all())
    assert all(a.named[i, k] for i, k in enumerate(a.shown.tolist()))


def test_a_work_folder_is_of_one_set_of_pictures(data, tmp_path):
    load_pictures(data, tmp_path / "work")
    other = tmp_path / "other" / "images"
    other.mkdir(parents=True)
    (other / "cat.zip").write_bytes((data / "images" / "dog.zip").read_bytes())
    with pytest.raises(ValueError, match="other pictures"):
        load_pictures(other.parent, tmp_path / "work")


def test_wordpieces_of_a_name_carry_its_label():
    """[CLS] and padding are ignored, a doubtful name too; other pieces are none."""
    mentions = (Mention(4, 7, "dog", "sg", ""), Mention(8, 12, "fish", "sg", "", sure=False))
    offsets = torch.tensor([[[0, 0], [0, 3], [4, 6], [6, 7], [8, 12], [0, 0]]])
    labels = piece_labels([Passage("The dog fish", "en", mentions, "musti")], offsets, ("dog", "fish"))
    assert labels.tolist() == [[IGNORE, 2, 0, 0, IGNORE, IGNORE]]


def shown_by_hand() -> Shown:
    """Two single pictures (objects 0 and 1), one collage of 1 and 2, one picture of nothing; three objects."""
    presence = torch.tensor([[1, 0, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], dtype=torch.bool)
    boxes = torch.tensor([[[0.0, 0.0, 1.0, 0.5], [0.0, 0.5, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]])
    return Shown(torch.zeros(4, 3, 8, 8), presence, 2, torch.tensor([[1, 2, -1, -1]]), boxes)


def test_pairs_follow_what_is_named_and_what_is_shown():
    """Passage 0 names 0 and may name 1; passage 1 names 1: a NO never shows what a passage may name."""
    named = torch.tensor([[1, 0, 0], [0, 1, 0]], dtype=torch.bool)
    touched = torch.tensor([[1, 1, 0], [0, 1, 0]], dtype=torch.bool)
    empty = torch.zeros(2, 4, dtype=torch.long)
    texts, shown, seen = Texts(empty, empty, empty, named, touched, torch.tensor([0, 1]), 0), shown_by_hand(), set()
    for seed in range(40):
        pairs, labels = draw_pairs(texts, shown, torch.Generator().manual_seed(seed))
        seen |= {(p, c, int(y)) for (p, c), y in zip(pairs.tolist(), labels.tolist(), strict=True)}
    assert seen == {(0, 0, 1), (1, 1, 1), (1, 2, 1), (1, 0, 0), (0, 3, 0), (1, 3, 0)}


def test_labels_of_the_gate_by_hand():
    pieces = torch.tensor([[IGNORE, 0, 1, 3], [2, 2, 3, IGNORE]])  # 3: names nothing
    presence = torch.tensor([[1, 0, 0], [0, 0, 0]], dtype=torch.bool)
    assert Objective._gate_labels(pieces, presence).tolist() == [[IGNORE, 1, 0, 2], [0, 0, 2, IGNORE]]


@pytest.mark.parametrize("places, expected", [([0, 1], 0.0), ([1, 0], -np.log(1e-6)), ([None, None], np.log(2))])
def test_items_found_in_their_boxes_cost_nothing(places, expected):
    """A grid of 1 x 2: object 1 lies left, object 2 right; each looks at one place, or at both alike."""
    weights = torch.zeros(4, 3, 2)
    for item, place in zip((1, 2), places, strict=True):
        weights[2, item] = torch.tensor([0.5, 0.5]) if place is None else torch.eye(2)[place]
    loss = Objective._in_place(Objective(None), weights, (1, 2), shown_by_hand())
    assert float(loss) == pytest.approx(expected, abs=1e-4)


def test_the_fused_text_is_held_to_the_shared_object_or_to_nothing():
    """YES: its direction; NO: no known direction at all. The right vectors cost next to nothing, exchanged ones
    much."""
    model = MustiModel(tiny_config(naming_scale=40.0))
    model.requires_grad_(False)
    one = model.prototypes[0]
    away = -torch.nn.functional.normalize(model.prototypes, dim=-1).sum(0)  # far from all
    vectors = torch.stack([one, away])[:, None]
    shared, labels = torch.tensor([[1, 0, 0], [0, 0, 0]], dtype=torch.bool), torch.tensor([1.0, 0.0])
    right, wrong = (float(Objective._pooled(model, v, shared, labels)) for v in (vectors, vectors.flip(0)))
    assert right < 0.1 < 5 < wrong


def test_the_pairs_teach_the_gate_and_what_it_passes_on():
    """Gradients reach the gate's opening, what it passes on, and the branches' projections."""
    model = MustiModel(tiny_config(gate="word", meeting="content")).train()
    shown = shown_by_hand()
    encoded = {
        "vit": ImageTokens(model.branches["vit"].projection(torch.randn(4, 21, 24)), (5, 4)),
        "resnet": ImageTokens(torch.randn(4, 10, 32), (3, 3)),
    }
    ids, mask = torch.randint(5, 300, (2, 8)), torch.ones(2, 8, dtype=torch.long)
    named = torch.tensor([[1, 0, 0], [0, 1, 0]], dtype=torch.bool)
    texts = Texts(ids, mask, torch.tensor([[3, 0, 3, 1, 3, 3, 3, 3]] * 2), named, named, torch.tensor([0, 1]), 1)
    parts = Objective(None, FocalLoss(2.0, 0.5))._pairs(model, encoded, model.words(ids, mask), texts, shown)
    sum(parts.values()).backward()
    assert set(parts) == {"pairs", "gate", "pooled"}
    for name in ("alpha", "beta", "pass_on.weight", "space.word.weight", "space.place.weight"):
        parameter = model.fusion.get_parameter(name)
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert isinstance(model.words(ids, mask), Words)


def test_grids_show_the_named_object_in_the_quarter_they_say():
    colours = np.zeros((5, 8, 8, 3), np.uint8)
    colours[:] = (np.arange(5) * 50)[:, None, None, None]  # object k is all 50 k
    made = Pictures(colours, np.arange(5), np.array(["x"] * 5), np.array(["n"] * 5), tuple("abcde"))
    passages = [Passage("a d", "en", (Mention(2, 3, "d", "sg", ""),), "corpora")]
    for pixels, at, quarter in grids(made, passages, 12):
        corners = [int(pixels[i, j, 0]) for i in (0, -1) for j in (0, -1)]
        assert at == 0 and corners[quarter] == 150 and len(set(corners)) == 4
    assert grids(made, [Passage("a", "en", (), "corpora")], 3) == []


def test_every_batch_has_as_many_pictures(small):
    rng = np.random.default_rng(0)
    made = Pictures(
        rng.integers(0, 255, (9, 24, 24, 3), dtype=np.uint8),
        np.arange(9) % 3,
        np.array(["pacs-art", "x", "x"] * 3),
        np.array(["n"] * 9),
        ("a", "b", "c"),
    )
    album = Album(made, 24, torch.device("cpu"), torch.zeros(2, 24, 24, 3, dtype=torch.uint8), count=8)
    few, many = album.draw(torch.tensor([2, 0]), 1), album.draw(torch.arange(12) % 3, 2)
    assert few.pixels.shape == many.pixels.shape == (8 + 4 + 1, 3, 24, 24) and few.singles == 8
    assert (
        few.presence[:2].float().argmax(1).tolist() == [2, 0]
        and (few.presence[:8].sum(1) == 1).all()
        and not few.presence[-1].any()
    )
    assert torch.equal(album.draw(torch.tensor([2, 0]), 1).pixels, few.pixels)


def test_kept_pictures_are_drawn_with_what_they_show(small):
    """Each picture's feature is its number among all that were encoded; what a draw says of it is what was said when it
    was made."""
    made = Pictures(
        np.random.default_rng(0).integers(0, 255, (9, 24, 24, 3), dtype=np.uint8),
        np.arange(9) % 3,
        np.array(["x"] * 9),
        np.array(["n"] * 9),
        ("a", "b", "c"),
    )
    album = Album(made, 24, torch.device("cpu"), torch.zeros(2, 24, 24, 3, dtype=torch.uint8), count=4)
    said: list[torch.Tensor] = []
    real = album.draw

    def draw(shown, seed):
        said.append(real(shown, seed).presence)
        return real(shown, seed)

    album.draw = draw
    encoded = iter(range(0, 10_000, 100))
    kept = KeptAlbum(album, lambda pixels: {"x": next(encoded) + torch.arange(len(pixels)).float()[:, None]}, each=4)
    shown = kept.draw(torch.tensor([2, 0]), 5)
    assert shown.singles == 4 and len(shown.objects) == 2 and len(shown.presence) == 4 + 2 + 1 and shown.pixels is None
    assert shown.presence[:2].float().argmax(1).tolist() == [2, 0]
    for number, presence in zip(shown.features["x"][:, 0].tolist(), shown.presence, strict=True):
        draw_number, row = divmod(int(number), 100)
        assert torch.equal(presence, said[draw_number][row])
    again = kept.draw(torch.tensor([2, 0]), 5)
    assert torch.equal(again.features["x"], shown.features["x"])


def test_exported_pairs_are_a_musti_file(data, tmp_path, monkeypatch):
    from musti_model.records import read_pairs
    from training.starter import export

    monkeypatch.setattr(
        "sys.argv",
        ["export", "--data", str(data), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--yes", "5"],
    )
    export.main()
    pairs, bad = read_pairs(tmp_path / "o" / "pairs.json")
    assert not bad and sum(p.label for p in pairs) == 5 and len(pairs) == 20
    for p in pairs:
        assert Image.open(p.image).size == (STORED_SIZE, STORED_SIZE) and len(p.objects) == p.label
        if p.label:
            assert p.objects[0].lower() in p.text.lower() and p.image  # the drawn sentences have the singular


def test_shared_text_stays_on_one_side(tmp_path, data):
    """A passage that begins three words later in another file is not held out from itself."""
    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{'abcdefghij'[d]}" for d in rng.integers(0, 10, 30)) for _ in range(300)]
    (tmp_path / "musti").mkdir()
    rows = [{"text": t, "language": "en"} for t in texts] + [
        {"text": t.split(" ", 3)[3], "language": "en"} for t in texts
    ]
    (tmp_path / "musti" / "musti-train.json").write_text(json.dumps({"pairs": rows}))
    splits = load_passages(tmp_path, {language: Lexicon(language, ("dog",)) for language in LANGUAGES})
    train = {p.text for p in splits["train"]}
    held = [p.text for s in ("dev", "test") for p in splits[s]]
    assert held and not any(h in t or t in h for h in held for t in train)


def test_answers_are_calibrated_on_dev_pairs(data, tmp_path, small, monkeypatch):
    """Labels drawn from sigmoid((z - 3) / 2): the bias goes down by 3, the temperature is 2; what the model answers
    moves with them."""
    model, shop = workshop(data, tmp_path / "work")
    rng, pairs = np.random.default_rng(0), shop.pairs["dev"]
    logits = rng.normal(3, 8, 20_000)
    labels = rng.random(len(logits)) < 1 / (1 + np.exp(-(logits - 3) / 2))
    monkeypatch.setitem(shop.pairs, "dev", [replace(pairs[0], label=int(y)) for y in labels])
    answered = Scored({"learned": logits}, [], [])
    monkeypatch.setattr("training.starter.finish.score_pairs", lambda *_: answered)
    before = model.vote_constant().item()
    again = calibrate_answers(model, shop, {})
    shift = model.vote_constant().item() - before
    assert np.allclose(again.logits["learned"], logits + shift, atol=1e-5)
    assert shift == pytest.approx(-3, abs=0.2) and model.config.temperature == pytest.approx(2, rel=0.05)
    assert model.config.threshold == pytest.approx(0.5, abs=0.1)


def test_the_word_score_makes_openings_as_likely_as_shared_names(data, tmp_path, small, monkeypatch):
    """Three kinds of words that name what is shown once in 2, 11 and 101, each with an agreement of its own: where such
    a word weighs as five, the odds that the gate opens are 5, 1/2 and 1/20."""
    gate = workshop(data, tmp_path / "work")[0].fusion
    times, agreement = torch.tensor([1, 10, 100]), torch.tensor([0.1, 0.4, 0.2])
    kinds = torch.arange(3).repeat_interleave(1 + times)
    shown = torch.cat([torch.arange(1 + n) == 0 for n in times])
    states = torch.eye(gate.word_score.weight.shape[1])[kinds].half()
    monkeypatch.setattr("training.starter.opening.RIDGE", 0.0)
    score = fit_word_score(gate, Looked(states, agreement[kinds, None].expand(-1, 2), shown))
    odds = torch.exp(gate.open_at(agreement) + score[:3])
    assert torch.allclose(odds, torch.tensor([5, 0.5, 0.05]), rtol=1e-2)


def test_the_word_score_is_held_to_what_it_was(data, tmp_path, small):
    """At the best score the loss, which falls as the score leaves what it was, falls no faster than the ridge rises:
    2 RIDGE (u - u0) = sum w (shown - opening) h / sum w, the opening a mean over branches that agree differently."""
    gate = workshop(data, tmp_path / "work")[0].fusion
    rng = torch.Generator().manual_seed(0)
    before = gate.word_score.weight.data.normal_(0, 0.3, generator=rng)[0]
    states = torch.randn(200, len(before), generator=rng).half()
    shown, agreement = torch.rand(200, generator=rng) < 0.2, torch.rand(200, 2, generator=rng)
    score = fit_word_score(gate, Looked(states, agreement, shown))
    weights = torch.where(shown, 5.0, 1.0)
    opening = (gate.open_at(agreement) + (states.float() @ score)[:, None]).sigmoid().mean(1)
    pull = ((weights * (shown.float() - opening))[:, None] * states.float()).sum(0) / weights.sum()
    assert (score - before).norm() > 0.1
    assert torch.allclose(2 * 1e-3 * (score - before), pull, atol=1e-5)


def test_words_look_for_their_places_as_in_the_pair_alone(data, tmp_path, small, monkeypatch):
    for module in ("opening", "scoring"):
        monkeypatch.setattr(f"training.starter.{module}.autocast", lambda _: nullcontext())
    model, shop = workshop(data, tmp_path / "work")
    pictures, passages = shop.pictures["dev"], list(shop.passages["dev"])
    one = next(p for p in shop.pairs["dev"] if p.label)
    [doubtful, *others] = passages[one.passage].mentions
    passages[one.passage] = replace(passages[one.passage], mentions=[replace(doubtful, sure=False), *others])
    pairs = shop.pairs["dev"][:4] + [p for p in shop.pairs["dev"] if p.passage == one.passage][:3]
    found = look_at_words(model, shop.tokenizer, pictures, passages, pairs, batch=2)
    states, agreement, shown = [], [], []
    for pair in sorted(pairs, key=lambda p: (len(passages[p.passage].text), p.passage)):
        enc = shop.tokenizer(passages[pair.passage].text, return_offsets_mapping=True, truncation=True)
        with torch.no_grad():
            words = model.words(torch.tensor([enc["input_ids"]]), torch.tensor([enc["attention_mask"]]))
            images = encode_pictures(model, pictures.pixels[[pair.picture]]).values()
            met = [model.fusion.meet(ImageTokens(i.tokens.float(), i.grid), words) for i in images]
        for at, (start, end) in enumerate(enc["offset_mapping"]):
            mentions = [m for m in passages[pair.passage].mentions if start < m.end and end > m.start]
            if end > start and all(m.sure for m in mentions):
                states.append(words.states[0, at])
                agreement.append(torch.stack([m.agreement[0, at] for m in met]))
                shown.append(any(m.object == pair.object for m in mentions))
    assert torch.allclose(found.states.float(), torch.stack(states), atol=1e-2)
    assert torch.allclose(found.agreement, torch.stack(agreement), atol=1e-4)
    assert found.shown.tolist() == shown and any(shown)
    with pytest.raises(ValueError, match="no pair"):
        look_at_words(model, shop.tokenizer, pictures, passages, [])


def test_only_the_word_score_is_calibrated_and_no_other_gate(data, tmp_path, small, monkeypatch):
    model, shop = workshop(data, tmp_path / "work")
    kept, asked = {n: v.clone() for n, v in model.state_dict().items()}, []

    def noted(*args):
        asked.append(args[2:])
        return look_at_words(*args)

    monkeypatch.setattr("training.starter.opening.look_at_words", noted)
    calibrate_gate(model, shop)
    changed = {n for n, v in model.state_dict().items() if not torch.equal(v, kept[n])}
    assert changed == {"fusion.word_score.weight"}
    stored = model.fusion.word_score.weight.detach()
    assert torch.equal(stored, stored.half().float())
    [(pictures, passages, pairs)] = asked
    assert pictures is shop.pictures["train"] and passages is shop.passages["train"]
    assert len(pairs) == 2 * sum(p.label for p in pairs) > 0
    model.fusion = ScalarGate(model.config, stored.shape[1])
    calibrate_gate(model, shop)
    assert len(asked) == 1


def test_scores_are_those_of_each_pair_alone(data, tmp_path, small, monkeypatch):
    """With the gate shut a passage is read once for all its pictures; without a mode only openings are asked for."""
    model, shop = workshop(data, tmp_path / "work")
    model.fusion.beta.data.zero_()  # ajar
    monkeypatch.setattr("training.starter.scoring.autocast", lambda _: nullcontext())
    pictures, passages = shop.pictures["dev"], shop.passages["dev"]
    pairs = shop.pairs["dev"][:40]
    encoded = encode_pictures(model, pictures.pixels)
    scored = score_pairs(model, shop.tokenizer, encoded, passages, pairs, batch=7, modes=MODES)
    assert len({p.passage for p in pairs}) > 7
    for i in (0, 17, 39):
        enc = shop.tokenizer([passages[pairs[i].passage].text], truncation=True, return_tensors="pt")
        own = {n: ImageTokens(t.tokens[[pairs[i].picture]].float(), t.grid) for n, t in encoded.items()}
        for mode in MODES:
            with torch.inference_mode():
                alone = model.match(own, enc["input_ids"], enc["attention_mask"], gate=mode).logits.item()
            assert scored.logits[mode][i] == pytest.approx(alone, abs=1e-4), mode
    for mode in ("shut", "open"):
        assert np.abs(scored.logits[mode] - scored.logits["learned"]).min() > 1e-3
    read = []
    monkeypatch.setattr(model.text.encoder, "forward", recorded(read, model.text.encoder.forward))
    openings = score_pairs(model, shop.tokenizer, encoded, passages, pairs, batch=40, modes=())
    assert not openings.logits and read == [len({p.passage for p in pairs})]
    assert all(
        np.allclose(a, b, atol=1e-5) and a.std() for a, b in zip(openings.openings, scored.openings, strict=True)
    )
    read.clear()
    score_pairs(model, shop.tokenizer, encoded, passages, pairs, batch=40, modes=("shut",))
    assert sum(read) == 2 * len({p.passage for p in pairs})  # to be compared with places, and to be answered


def recorded(rows, forward):
    """The same method, which puts down how many rows it was given."""

    def of(states, *given, **named):
        rows.append(len(states))
        return forward(states, *given, **named)

    return of


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_backbones_go_part_of_the_way_back(monkeypatch, share):
    torch.manual_seed(0)
    model, start = (MustiModel(tiny_config(gate="word", meeting="content")) for _ in range(2))
    monkeypatch.setattr(towers, "starter_model", lambda *_: (start, None))
    before = {n: p.clone() for n, p in model.named_parameters()}
    towers.toward_pretrained(model, Path(), share)
    pretrained = dict(start.named_parameters())
    for name, now in model.named_parameters():
        expected = (1 - share) * before[name] + share * pretrained[name] if "backbone" in name else before[name]
        assert torch.allclose(now, expected, atol=1e-6), name
