"""The starter's stages from raw material to a folder of weights, on drawn pictures and a few steps."""

import hashlib
import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from training.starter.match import IGNORE, piece_labels
from training.starter.pretrain_images import ImageSchedule, pretrain

from musti_model import MustiPipeline
from musti_model.config import preset
from musti_model.model import MustiModel
from training.starter.finish import finish, recorded_seconds
from training.starter.pictures import STORED_SIZE, load_pictures
from training.starter.stages import Workshop, finished_backbones, match_stage, words_stage

OBJECTS = {"candle": "white", "dog": "brown", "fish": "blue"}
NAMES = {"en": {"candle": "candle", "dog": "dog", "fish": "fish"}, "de": {"candle": "Kerze", "dog": "Hund", "fish": "Fisch"}}


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


def test_from_raw_material_to_weights(data, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    pictures = load_pictures(data, work)
    assert pictures["train"].objects == tuple(sorted(OBJECTS))
    torch.manual_seed(0)
    model = MustiModel(preset("starter", objects=pictures["train"].objects))
    resnet = model.config.branches[1]
    schedule = ImageSchedule(epochs=1, lr=1e-3, batch=32, size=96)
    net = pretrain("resnet", resnet.backbone, dict(resnet.backbone_args), schedule, pictures["train"], pictures["dev"], work)
    with pytest.raises(ValueError, match="another schedule"):
        other = ImageSchedule(epochs=2, lr=1e-3, batch=32, size=96)
        pretrain("resnet", resnet.backbone, dict(resnet.backbone_args), other, pictures["train"], pictures["dev"], work)
    model.branches["resnet"].backbone.load_state_dict(net.backbone.state_dict())
    frozen = {k: v.clone() for k, v in model.branches["resnet"].backbone.state_dict().items()}
    shop = Workshop(data, work, pictures, model)
    words_stage(model, shop, work / "words", epochs=3, steps=2)  # a drill, then passages
    match_stage(model, shop, work / "match", epochs=1, steps=2)
    assert 0 < json.loads((work / "match" / "log.jsonl").read_text())["places"] < 2.5
    assert all(torch.equal(v, frozen[k]) for k, v in model.branches["resnet"].backbone.state_dict().items())
    metrics = finish(model, shop, work, out, recorded_seconds(work))
    pipe = MustiPipeline.from_pretrained(out)
    assert pipe.objects == tuple(sorted(OBJECTS)) and 0 < pipe(Image.new("RGB", (60, 40), "blue"), "The fish stank.").probability < 1
    assert metrics["weights"] == "sha256:" + hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest()[:12]
    assert "test_paintings" not in metrics and metrics["picture_sources"].keys() == {"drawn"}
    assert metrics["baselines"]["picture classifier + perfect word list"]["auc"] > 0.4 and metrics["test"]["pairs"] % 4 == 0
    assert f"{metrics['test']['f1_macro']:.3f}" in (out / "README.md").read_text()
    again = MustiModel(preset("starter", objects=pictures["train"].objects))
    finished_backbones(again, out, work)
    a, b = (m.branches["resnet"].backbone.conv1.weight for m in (again, model))
    assert torch.allclose(a, b.float(), atol=1e-3)


def test_a_work_folder_is_of_one_set_of_pictures(data, tmp_path):
    load_pictures(data, tmp_path / "work")
    other = tmp_path / "other" / "images"
    other.mkdir(parents=True)
    (other / "cat.zip").write_bytes((data / "images" / "dog.zip").read_bytes())
    with pytest.raises(ValueError, match="other pictures"):
        load_pictures(other.parent, tmp_path / "work")


def test_wordpieces_of_a_name_carry_its_label():
    """[CLS] and padding are ignored, a doubtful name too; other pieces are none."""
    from training.starter.lexicon import Mention
    from training.starter.passages import Passage

    mentions = (Mention(4, 7, "dog", "sg", ""), Mention(8, 12, "fish", "sg", "", sure=False))
    offsets = torch.tensor([[[0, 0], [0, 3], [4, 6], [6, 7], [8, 12], [0, 0]]])
    labels = piece_labels([Passage("The dog fish", "en", mentions, "musti")], offsets, ("dog", "fish"))
    assert labels.tolist() == [[IGNORE, 2, 0, 0, IGNORE, IGNORE]]


def test_mosaics_are_made_of_four_pictures():
    from training.starter.augment import mosaics, quarters

    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8)  # picture k is all k, and its label too
    made, labels = mosaics(x, torch.arange(6), torch.Generator().manual_seed(0))
    corners = torch.stack([made[:, 0, i, j] for i in (0, 7) for j in (0, 7)], dim=1)
    assert made.shape == (6, 3, 8, 8) and torch.equal(corners, labels.float()) and torch.equal(made[:, 0, 3, 4], labels[:, 1].float())
    assert all(len(set(row)) > 1 for row in labels.tolist()[:3])
    assert quarters(torch.tensor([[0, 1, 2, 3]]), (2, 4)).tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]
    assert quarters(torch.tensor([[0, 1, 2, 3]]), (3, 2)).tolist() == [[0, 1, 2, 3, 2, 3]]


def test_objects_found_in_their_quarters_cost_nothing(monkeypatch):
    """Four places, the logits of each are given: found, not told apart (log 4), and found in the wrong quarter."""
    from types import SimpleNamespace

    from musti_model.image_tower import ImageTokens
    from training.starter import match

    logits = 50 * torch.eye(4)[None]  # place q shows object q
    for given, labels, expected in ((logits, [0, 1, 2, 3], 0.0), (0 * logits, [0, 1, 2, 3], np.log(4)), (logits, [1, 0, 3, 2], 50.0)):
        tokens = ImageTokens(torch.cat([torch.zeros(1, 1, 4), given], dim=1), (2, 2))
        monkeypatch.setattr(match, "tokens_of", lambda *_, tokens=tokens: {"vit": tokens})
        objective = match.Objective([], None, mosaics={"vit": torch.zeros(1), "labels": torch.tensor([labels])})
        model = SimpleNamespace(branches={"vit": None}, name_vector=lambda t: t)
        assert float(objective._places(model, torch.tensor([0]))) == pytest.approx(expected, abs=1e-4)


def test_exported_pairs_are_a_musti_file(data, tmp_path, monkeypatch):
    from training.data import read_pairs
    from training.starter import export

    monkeypatch.setattr("sys.argv", ["export", "--data", str(data), "--work", str(tmp_path / "w"), "--out", str(tmp_path / "o"), "--yes", "5"])
    export.main()
    pairs, bad = read_pairs(tmp_path / "o" / "pairs.json")
    assert not bad and sum(p.label for p in pairs) == 5 and len(pairs) == 20
    for p in pairs:
        assert Image.open(p.image).size == (STORED_SIZE, STORED_SIZE) and len(p.objects) == p.label
        if p.label:
            assert p.objects[0].lower() in p.text.lower() and p.image  # the drawn sentences have the singular


def test_shared_text_stays_on_one_side(tmp_path, data):
    """A passage that begins three words later in another file is not held out from itself."""
    from training.starter.lexicon import LANGUAGES, Lexicon
    from training.starter.passages import load_passages

    rng = np.random.default_rng(1)
    texts = [" ".join(f"w{'abcdefghij'[d]}" for d in rng.integers(0, 10, 30)) for _ in range(300)]
    (tmp_path / "musti").mkdir()
    rows = [{"text": t, "language": "en"} for t in texts] + [{"text": t.split(" ", 3)[3], "language": "en"} for t in texts]
    (tmp_path / "musti" / "musti-train.json").write_text(json.dumps({"pairs": rows}))
    splits = load_passages(tmp_path, {language: Lexicon(language, ("dog",)) for language in LANGUAGES})
    train = {p.text for p in splits["train"]}
    held = [p.text for s in ("dev", "test") for p in splits[s]]
    assert held and not any(h in t or t in h for h in held for t in train)
