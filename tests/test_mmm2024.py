"""The authors' checkpoints: tiny random ones in their format against a plain re-statement of the published
equations."""

import itertools
import json
import os
import pickle
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetModel, SwinConfig, SwinModel, ViTConfig, ViTModel

from musti_model import MustiPipeline, WeightsError, mmm2024, preset
from tests.conftest import TEXTS
from tests.wordpieces import train_tokenizer

SIDE, GRID, WIDTH = 64, 17, 128  # pixels; 1 + 4 x 4 patches, also the text's length; features
ALL = ("vit", "resnet", "swin")
# gate, branches, learned vote
VARIANTS = {
    family + name: (family == "TSF", branches, learned)
    for family in ("TSF", "Baseline")
    for name, branches, learned in (
        ("", ALL, True),
        ("_hard_voting", ALL, False),
        ("_ViT", ("vit",), False),
        ("_Resnet", ("resnet",), False),
        ("_Swin", ("swin",), False),
        ("_ViT_Resnet", ("vit", "resnet"), True),
        ("_ViT_Resnet_hard_voting", ("vit", "resnet"), False),
        ("_ViT_Swin", ("vit", "swin"), True),
        ("_Resnet_Swin", ("resnet", "swin"), True),
    )
}
RESNETS = {
    "bottleneck": {"hidden_sizes": [32, 64, 96, 160], "depths": [2, 1, 1, 1]},
    "basic": {"hidden_sizes": [64, 72, 96, 128], "depths": [1, 2, 1, 1]},
}
TINY = {
    "vit": {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 192,
        "image_size": SIDE,
    },
    # 16 x 16, 8 x 8 and 4 x 4 places in windows of 4: shifted windows in the second stage, one whole window in the
    # last, as in Swin-T
    "swin": {
        "image_size": SIDE,
        "embed_dim": 32,
        "depths": [1, 2, 1],
        "num_heads": [1, 2, 4],
        "window_size": 4,
        "mlp_ratio": 3.0,
    },
    "text": {
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 96,
        "max_position_embeddings": 40,
    },
}


class Original(nn.Module):
    """The modules of the published model under the names of its file. Its equations are in ``logits``."""

    def __init__(self, voters, resnet, vit, swin, text, grid=GRID, places=4, swin_places=16):
        super().__init__()
        bert = BertModel(BertConfig(**text))
        self.vit_encoder = ViTModel(ViTConfig(**vit))
        self.resnet_encoder = nn.Sequential(ResNetModel(ResNetConfig(**resnet)))
        self.swintransformer_encoder = nn.Sequential(SwinModel(SwinConfig(**swin)))
        self.text_embedding, self.text_encoder, self.pooling_layer = bert.embeddings, bert.encoder, bert.pooler
        hidden = bert.config.hidden_size
        self.layernorm_197, self.layernorm_768 = nn.LayerNorm(grid), nn.LayerNorm(hidden)
        self.linear = nn.Linear(2, 1)
        self.resnet_projection_2 = nn.Linear(resnet["hidden_sizes"][-1], grid)
        self.resnet_projection_3 = nn.Linear(places, hidden)
        self.swintransformer_projection_1 = nn.Linear(swin_places, grid)
        self.final_projection = nn.Linear(grid, 1)
        self.voting = nn.Linear(voters, 1)


def original(vocabulary, voters=3, resnet="bottleneck", seed=0):
    """Tiny and random in every weight and statistic, so that no two could be exchanged unseen."""
    torch.manual_seed(seed)
    resnet = {**RESNETS[resnet], "layer_type": resnet, "embedding_size": 64}
    model = Original(voters, resnet, TINY["vit"], TINY["swin"], {**TINY["text"], "vocab_size": vocabulary}).eval()
    with torch.no_grad():
        for value in model.parameters():
            if value.dim() > 1:
                value.normal_(0, value[0].numel() ** -0.5)
            else:
                value.add_(0.3 * torch.randn_like(value))
        for name, value in model.named_parameters():
            if "relative_position_bias_table" in name:
                value.normal_()
            elif "position_embeddings" in name or "cls_token" in name:
                value.normal_(0, 0.5)
        for name, value in model.named_buffers():
            if name.endswith("running_mean"):
                value.normal_(0, 0.3)
            elif name.endswith("running_var"):
                value.uniform_(0.5, 2)
    return model


def image_tokens(model, branch, pixels):
    """[B, 3, S, S] -> I [B, grid, hidden]."""
    if branch == "vit":
        return model.vit_encoder(pixels).last_hidden_state
    if branch == "resnet":
        x = model.resnet_encoder[0](pixels).last_hidden_state.flatten(2)  # [B, channels, places]
        x = torch.einsum("bcp,tc->bpt", x, model.resnet_projection_2.weight) + model.resnet_projection_2.bias
        x = torch.einsum("bpt,hp->bth", norm(x, model.layernorm_197), model.resnet_projection_3.weight)
        return norm(x + model.resnet_projection_3.bias, model.layernorm_768)
    x = model.swintransformer_encoder[0](pixels).last_hidden_state  # [B, places, hidden]
    x = (
        torch.einsum("bph,tp->bht", x, model.swintransformer_projection_1.weight)
        + model.swintransformer_projection_1.bias
    )
    return norm(x, model.layernorm_197).transpose(1, 2)


def norm(x, layer):
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * layer.weight + layer.bias


def logits(model, variant, pixels, ids):
    """The published equations, without our model. -> [B]."""
    gate, branches, learned = VARIANTS[variant]
    text, cosines = model.text_embedding(input_ids=ids), []
    for branch in branches:
        image, fused = image_tokens(model, branch, pixels), text
        if gate:
            mixed = (
                torch.einsum("bthk,k->bth", torch.stack([image, text], -1), model.linear.weight[0]) + model.linear.bias
            )
            fused = norm(mixed + text, model.layernorm_768)
        first = model.text_encoder(fused).last_hidden_state[:, 0]
        t = torch.tanh(first @ model.pooling_layer.dense.weight.T + model.pooling_layer.dense.bias)
        i = torch.einsum("bth,t->bh", image, model.final_projection.weight[0]) + model.final_projection.bias
        cosines.append((t * i).sum(-1) / t.norm(dim=-1) / i.norm(dim=-1))
    s = torch.stack(cosines, -1)
    if learned:
        return s @ model.voting.weight[0] + model.voting.bias
    return s.mean(-1)


NAMES_OF_2023 = {
    "vit_encoder.": [(r"^layers\.", "encoder.layer."), (r"attention\.([qkv])_proj", r"attention.attention.\1")],
    "swintransformer_encoder.0.": [
        (r"attention\.([qkv])_proj", r"attention.self.\1"),
        (r"attention\.relative_position_bias\.", "attention.self."),
    ],
}
BLOCK_OF_2023 = [
    (r"\.q\.", ".query."),
    (r"\.k\.", ".key."),
    (r"\.v\.", ".value."),
    (r"attention\.o_proj", "attention.output.dense"),
]
BLOCK_OF_2023 += [(r"mlp\.fc1", "intermediate.dense"), (r"mlp\.fc2", "output.dense")]


def state_of_2023(model):
    """The state dict as transformers named it then, buffers that were stored then included."""
    state = {}
    for key, value in model.state_dict().items():
        for prefix, renames in NAMES_OF_2023.items():
            if key.startswith(prefix):
                key = key.removeprefix(prefix)
                for pattern, name in renames + BLOCK_OF_2023:
                    key = re.sub(pattern, name, key)
                key = prefix + key
        state[key] = value.detach().clone()
        if key.endswith("relative_position_bias_table"):
            state[key.replace("bias_table", "index")] = torch.zeros(16, 16, dtype=torch.long)
    state["text_embedding.position_ids"] = torch.arange(40)[None]
    assert "vit_encoder.encoder.layer.1.attention.attention.query.weight" in state
    assert "swintransformer_encoder.0.encoder.layers.1.blocks.1.attention.self.relative_position_index" in state
    return state


def inputs(vocabulary, batch=3):
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, vocabulary, (batch, GRID), generator=generator)
    mask = torch.ones_like(ids)
    ids[1:, 9:], mask[1:, 9:] = 0, 0  # padded, which takes part
    return torch.randn(batch, 3, SIDE, SIDE, generator=generator), ids, mask


def checkpoint_of(model, variant, vocabulary):
    """As their training saves it: Adam has met the gradients of one step, here of length zero."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    pixels, ids, _ = inputs(vocabulary, 1)
    logits(model, variant, pixels, ids).sum().backward()
    optimizer.step()
    model.zero_grad(set_to_none=True)
    return {
        "epoch": 3,
        "model_state_dict": state_of_2023(model),
        "optimizer_state_dict": optimizer.state_dict(),
        "loss": 0.1,
    }


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A tokenizer's folder, and how many wordpieces it has."""
    tokenizer = train_tokenizer(TEXTS, [], 200, GRID)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save_pretrained(folder)
    return folder, len(tokenizer)


@pytest.fixture(scope="module")
def model(words):
    return original(words[1])


@pytest.fixture
def checkpoint(model, words):
    """Of TSF, to be spoilt."""
    return checkpoint_of(model, "TSF", words[1])


def convert(checkpoint, tmp_path, words, **options):
    torch.save(checkpoint, tmp_path / "their.pt")
    return mmm2024.convert(tmp_path / "their.pt", tmp_path / "out", tokenizer=words[0], **options)


def assert_same_logits(model, variant, tmp_path, words):
    """Converts, loads, compares; the architecture is found from the file."""
    config = convert(checkpoint_of(model, variant, words[1]), tmp_path, words)
    gate, branches, learned = VARIANTS[variant]
    assert (config.name, tuple(b.name for b in config.branches)) == (variant, branches)
    assert (config.gate, config.voting) == ("scalar" if gate else "none", "learned" if learned else "mean")
    pixels, ids, mask = inputs(words[1])
    pipe = MustiPipeline.from_pretrained(tmp_path / "out", device="cpu", precision="float32")
    with torch.no_grad():
        ours = pipe.model({b.name: pixels for b in config.branches}, ids, mask).logits
        theirs = logits(model, variant, pixels, ids)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-4), (ours - theirs).abs().max()
    return config


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_published_equations(variant, tmp_path, words):
    assert_same_logits(original(words[1], len(VARIANTS[variant][1])), variant, tmp_path, words)


def test_the_variants_differ_and_so_do_the_pairs(model, words):
    pixels, ids, _ = inputs(words[1])
    with torch.no_grad():
        model_of = {n: original(words[1], n) for n in (1, 2, 3)}
        every = {v: logits(model_of[len(VARIANTS[v][1])], v, pixels, ids) for v in VARIANTS}
    assert set(every) == set(mmm2024.ARCHITECTURES) and len(every) == 18
    for (a, x), (b, y) in itertools.combinations(every.items(), 2):
        assert (x - y).abs().max() > 1e-3, (a, b)
    assert all(x.std() > 1e-3 for x in every.values())


def test_resnet_of_basic_layers(tmp_path, words):
    config = assert_same_logits(original(words[1], 2, resnet="basic"), "TSF_ViT_Resnet", tmp_path, words)
    assert config.branches[1].backbone == "resnet34.a1_in1k"
    assert config.branches[1].backbone_args == {"layers": [1, 2, 1, 1], "channels": [64, 72, 96, 128]}


@pytest.mark.parametrize("resnet", ["bottleneck", "basic"])
def test_full_size_gives_the_plain_preset(resnet):
    channels = [256, 512, 1024, 2048] if resnet == "bottleneck" else [64, 128, 256, 512]
    text = {"vocab_size": 119547, "max_position_embeddings": 512}
    with torch.device("meta"):  # shapes alone
        full = Original(
            3, {"layer_type": resnet, "hidden_sizes": channels}, {}, {}, text, grid=197, places=49, swin_places=49
        )
    expected = preset("published-all").to_dict() | {"name": "TSF"}
    if resnet == "basic":
        expected["branches"][1]["backbone"] = "resnet34.a1_in1k"
    assert mmm2024._config("TSF", state_of_2023(full)).to_dict() == expected


def test_the_folder_answers_pictures_and_passages(checkpoint, tmp_path, words):
    convert(checkpoint, tmp_path, words)
    assert {"config.json", "model.safetensors", "processor.json", "tokenizer.json"} <= {
        f.name for f in (tmp_path / "out").iterdir()
    }
    pipe = MustiPipeline.from_pretrained(tmp_path / "out", device="cpu", precision="float32")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8))
    answer = pipe(picture, TEXTS[0])
    assert set(answer.similarities) == set(ALL)
    assert abs(answer.probability - torch.sigmoid(torch.tensor(answer.logit)).item()) < 1e-6
    processor = json.loads((tmp_path / "out" / "processor.json").read_text())
    assert processor["branches"]["swin"] == {"size": SIDE, "resample": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3}


def test_unused_parts_keep_neutral_values(model, tmp_path, words):
    convert(checkpoint_of(model, "Baseline_ViT_Resnet_hard_voting", words[1]), tmp_path, words)
    ours = MustiPipeline.from_pretrained(tmp_path / "out", device="cpu").model
    assert torch.equal(ours.voting.weight, torch.full((1, 2), 0.5)) and not hasattr(ours.fusion, "scalars")
    assert (ours.scale.item(), ours.bias.item(), ours.none_logit.item(), ours.nothing_logit.item()) == (10, 0, 5, 5)
    assert torch.equal(ours.fusion.norm.weight, model.layernorm_768.weight)  # the ResNet's projection uses it


# The architecture, from the file --------------------------------------------------------------------------------------


def test_without_the_optimizer_the_candidates_are_listed(checkpoint, tmp_path, words):
    del checkpoint["optimizer_state_dict"]
    with pytest.raises(WeightsError, match=r"may be TSF, .*Baseline, .*--architecture") as error:
        convert(checkpoint, tmp_path, words)
    assert "ViT_Swin," not in str(error.value)  # whose vote has two weights
    assert convert(checkpoint, tmp_path, words, architecture="Baseline").gate == "none"


def test_an_optimizer_of_other_parameters_is_no_evidence(checkpoint, tmp_path, words):
    state = checkpoint["optimizer_state_dict"]["state"]
    moved = sorted(state)
    first, last = moved[0], moved[-1]
    state[first], state[last] = state[last], state[first]
    with pytest.raises(WeightsError, match="may be TSF"):
        convert(checkpoint, tmp_path, words)


def test_missing_parts_leave_fewer_candidates(checkpoint, tmp_path, words):
    del checkpoint["optimizer_state_dict"]
    state = checkpoint["model_state_dict"]
    for key in [k for k in state if k.startswith(("linear.", "voting.", "swintransformer", "resnet"))]:
        del state[key]
    assert convert(checkpoint, tmp_path, words).name == "Baseline_ViT"
    for key in [k for k in state if k.startswith("vit_encoder")]:
        del state[key]
    torch.save(checkpoint, tmp_path / "none.pt")
    with pytest.raises(WeightsError, match="none of the published"):
        mmm2024.detect_architecture(mmm2024.read_checkpoint(tmp_path / "none.pt"))


# Files that are refused -----------------------------------------------------------------------------------------------


class Hostile:
    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_hostile_pickle_runs_nothing(form, checkpoint, tmp_path, words, capsys):
    mark, path = tmp_path / "ran", tmp_path / "their.pt"
    checkpoint["loss"] = Hostile(mark)
    if form == "pickle":
        path.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    else:
        torch.save(checkpoint, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(WeightsError, match=r"their.pt asks for \w+\.mkdir to be loaded"):
        mmm2024.convert(path, tmp_path / "out", tokenizer=words[0])
    assert mmm2024.main([str(path), str(tmp_path / "out"), "--tokenizer", str(words[0])]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not mark.exists() and not (tmp_path / "out").exists()
    pickle.load(path.open("rb")) if form == "pickle" else torch.load(path, weights_only=False)
    assert mark.exists()  # it would have


def test_a_number_of_numpy_is_read_past(checkpoint, tmp_path, words):
    checkpoint["loss"] = np.float64(0.25)
    assert convert(checkpoint, tmp_path, words).name == "TSF"


def test_a_file_of_old_torch_is_read(checkpoint, tmp_path, words):
    torch.save(checkpoint, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert mmm2024.convert(tmp_path / "old.pt", tmp_path / "out", tokenizer=words[0]).name == "TSF"


def cut(path, checkpoint):
    torch.save(checkpoint, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_state(path, checkpoint):
    torch.save({"epoch": 1, "state_dict": checkpoint["model_state_dict"]}, path)


def with_a_list(path, checkpoint):
    checkpoint["model_state_dict"]["linear.bias"] = [0.0]
    torch.save(checkpoint, path)


def with_a_huge_shape(path, checkpoint):
    checkpoint["model_state_dict"]["text_embedding.word_embeddings.weight"] = torch.zeros(1).expand(10**9, 128)
    torch.save(checkpoint, path)


@pytest.mark.parametrize(
    ("make", "words_said"),
    [
        (cut, "damaged or cut off"),
        (lambda path, _: path.write_bytes(b""), "damaged or cut off"),
        (lambda path, _: path.write_text("roses smell"), "not a checkpoint of PyTorch"),
        (lambda path, _: torch.save([1, 2], path), "no model_state_dict"),
        (lambda path, _: path.mkdir(), "no checkpoint file"),
        (lambda path, _: None, "no checkpoint file"),
        (without_state, "no model_state_dict"),
        (with_a_list, "'linear.bias' that is not a plain tensor"),
        # 4 bytes that look like 512 GB
        (with_a_huge_shape, "'text_embedding.word_embeddings.weight' that is not a plain tensor"),
    ],
)
def test_files_that_are_no_checkpoint(make, words_said, checkpoint, tmp_path, words, capsys):
    make(tmp_path / "their.pt", checkpoint)
    arguments = [str(tmp_path / "their.pt"), str(tmp_path / "out"), "--tokenizer", str(words[0])]
    assert mmm2024.main(arguments) == 2
    said = capsys.readouterr().err
    assert words_said in said and said.count("\n") == 1 and "Traceback" not in said
    assert not (tmp_path / "out").exists()


def test_missing_unexpected_and_misshapen_keys_are_listed(checkpoint, tmp_path, words):
    state = checkpoint["model_state_dict"]
    removed = "vit_encoder.encoder.layer.1.attention.attention.key.weight"
    kept = state.pop(removed)
    del state["final_projection.bias"]
    for n in range(5):
        state[f"extra.{n}"] = torch.zeros(1)
    state["text_encoder.layer.0.odd"] = torch.zeros(1)
    with pytest.raises(WeightsError) as error:
        convert(checkpoint, tmp_path, words, architecture="TSF")
    said = str(error.value)
    assert removed in said and "final_projection.bias" in said and "2 missing" in said
    assert "6 unexpected (extra.0, extra.1, extra.2, ...)" in said
    state = {k: v for k, v in state.items() if not k.startswith("extra")}
    whole = {**state, removed: kept, "final_projection.bias": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"TSF: 1 unexpected \(text_encoder.layer.0.odd\); name"):
        convert(checkpoint | {"model_state_dict": whole}, tmp_path, words, architecture="TSF")
    del state["text_encoder.layer.0.odd"]
    state |= {removed: kept[:-1], "final_projection.bias": torch.zeros(1)}
    with pytest.raises(WeightsError, match=rf"1 of another shape \({re.escape(removed)}\)"):
        convert(checkpoint | {"model_state_dict": state}, tmp_path, words, architecture="TSF")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "key", ["vit_encoder.embeddings.position_embeddings", "text_embedding.word_embeddings.weight", "voting.weight"]
)
def test_a_missing_key_that_sizes_come_from_is_named(key, checkpoint, tmp_path, words):
    del checkpoint["model_state_dict"][key]
    with pytest.raises(WeightsError, match=rf"1 missing \({re.escape(key)}\)"):
        convert(checkpoint, tmp_path, words, architecture="TSF")


def test_the_wrong_architecture_is_refused(tmp_path, words):
    checkpoint = checkpoint_of(original(words[1], 2), "TSF_ViT_Swin", words[1])
    with pytest.raises(WeightsError, match=r"not those of TSF: 1 of another shape \(voting.weight\)"):
        convert(checkpoint, tmp_path, words, architecture="TSF")
    with pytest.raises(WeightsError, match="no published architecture 'TSF_Vit'.*TSF_ViT,"):
        convert(checkpoint, tmp_path, words, architecture="TSF_Vit")


def test_weights_that_cannot_be_used(checkpoint, tmp_path, words):
    state = checkpoint["model_state_dict"]
    state["linear.weight"][0, 0] = float("nan")
    with pytest.raises(WeightsError, match="not finite, linear.weight"):
        convert(checkpoint, tmp_path, words)
    state["text_embedding.word_embeddings.weight"] = torch.zeros(words[1], 100)
    with pytest.raises(WeightsError, match="100 wide has no whole number of heads"):
        convert(checkpoint, tmp_path, words, architecture="TSF")


# The folder and the command -------------------------------------------------------------------------------------------


def test_a_folder_with_something_in_it_is_refused(checkpoint, tmp_path, words):
    out = tmp_path / "out"
    out.mkdir()
    convert(checkpoint, tmp_path, words)  # empty, so it may be used
    before = (out / "model.safetensors").read_bytes()
    (out / "metrics.json").write_text('{"f1": 1}')
    checkpoint["model_state_dict"]["linear.bias"].fill_(7)
    with pytest.raises(WeightsError, match="not empty.*--force"):
        convert(checkpoint, tmp_path, words)
    assert (out / "model.safetensors").read_bytes() == before
    convert(checkpoint, tmp_path, words, force=True)
    pipe = MustiPipeline.from_pretrained(out, device="cpu")
    assert pipe.model.fusion.scalars.bias.item() == 7 and pipe.card == {}
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="is a file"):
        mmm2024.convert(tmp_path / "their.pt", tmp_path / "file", force=True)


def test_command(checkpoint, tmp_path, words, capsys, monkeypatch):
    asked, load = [], mmm2024.AutoTokenizer.from_pretrained
    monkeypatch.setattr(mmm2024, "reachable", lambda repo, revision: False)  # no network

    def spy(source, **options):
        asked.append((source, options["local_files_only"]))
        return load(source, **options)

    monkeypatch.setattr(mmm2024.AutoTokenizer, "from_pretrained", spy)
    torch.save(checkpoint, tmp_path / "their.pt")
    arguments = [str(tmp_path / "their.pt"), str(tmp_path / "out")]
    assert mmm2024.main([*arguments, "--tokenizer", "nobody/no-tokenizer"]) == 2
    said = capsys.readouterr().err
    assert (
        "nobody/no-tokenizer cannot be had" in said
        and said.count("\n") == 1
        and asked == [("nobody/no-tokenizer", True)]
    )
    other = train_tokenizer(TEXTS, [], words[1] - 20, GRID)
    other.save_pretrained(tmp_path / "other")
    assert mmm2024.main([*arguments, "--tokenizer", str(tmp_path / "other")]) == 2
    assert f"wordpieces and the checkpoint {words[1]}" in capsys.readouterr().err
    assert mmm2024.main([*arguments, "--architecture", "TSF2"]) == 2
    assert "TSF2" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert mmm2024.main([*arguments, "--architecture", "TSF", "--tokenizer", str(words[0])]) == 0
    assert "TSF, branches vit, resnet, swin" in capsys.readouterr().out
    assert MustiPipeline.from_pretrained(tmp_path / "out", device="cpu").config.name == "TSF"
