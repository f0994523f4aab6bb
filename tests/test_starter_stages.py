"""The starter's stages from raw material to a folder of weights, on drawn pictures and a few steps."""

import hashlib
import json
import zipfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from musti_model import MustiPipeline
from musti_model.config import preset
from musti_model.model import MustiModel
from training.starter.finish import finish, recorded_seconds
from training.starter.match import IGNORE, piece_labels
from training.starter.pictures import load_pictures
from training.starter.pretrain_images import ImageSchedule, pretrain
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
