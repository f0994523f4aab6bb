"""Weights that a stranger wrote: each folder loads and answers, or is refused in one sentence; nothing of it runs,
nothing outside of it is read."""

import contextlib
import json
import os
import pickle
import shutil
import struct
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BertTokenizer

import app
from musti_model import ImageBranchConfig, MustiConfig, MustiPipeline, MustiProcessor, WeightsError
from musti_model.__main__ import main
from musti_model.tokenizer import load_tokenizer
from page.tabs.about import card_markdown
from page.weights import weights_banner
from tests.conftest import tiny_config, tiny_model

TEXT = "The roses smelled sweet in the old house."
TENSORS = "model.safetensors"
WATCHED: list[tuple[int, list[str]]] = []  # (thread, what it did): who watches at the moment


def _watch(event: str, arguments: tuple) -> None:
    for thread, seen in WATCHED:
        if thread == threading.get_ident() and event in (
            "open",
            "socket.connect",
            "socket.getaddrinfo",
            "os.system",
            "subprocess.Popen",
            "builtins.input",
        ):
            seen.append(f"{event} {arguments[0] if event == 'open' else arguments}")


sys.addaudithook(_watch)


@contextlib.contextmanager
def watched(folder):
    """Nothing but files of the folder, and of Python itself, is opened meanwhile; no network, no programs, no
    questions."""
    seen: list[str] = []
    WATCHED.append((threading.get_ident(), seen))
    try:
        yield
    finally:
        WATCHED.clear()
    allowed = (
        str(folder),
        str(folder.resolve()),
        sys.prefix,
        sys.base_prefix,
        str(Path(os.__file__).parent),
        os.path.realpath(sys.prefix),
    )
    strange = [
        s
        for s in seen
        if not (s.startswith("open ") and (s[5:].startswith(allowed) or "site-packages" in s or s[5:].isdigit()))
    ]
    assert not strange


def changed(file, *path, **values):
    """A change of JSON values under a path."""

    def change(folder):
        whole = json.loads((folder / file).read_text())
        part = whole
        for key in path:
            part = part[key]
        part.update(values)
        (folder / file).write_text(json.dumps(whole))

    return change


def config(**values):
    return changed("config.json", **values)


def text(**values):
    return changed("config.json", "text", **values)


def branch(**values):
    return changed("config.json", "branches", 0, **values)


def args(**values):
    return changed("config.json", "branches", 0, "backbone_args", **values)


def settings(**values):
    return changed("tokenizer_config.json", **values)


def words(*path, **values):
    return changed("tokenizer.json", *path, **values)


def written(file, data):
    return lambda folder: (folder / file).write_bytes(data if isinstance(data, bytes) else data.encode())


def tensors(change):
    def save(folder):
        values = load_file(folder / TENSORS)
        save_file(change(values) or values, folder / TENSORS)

    return save


def linked(file, target):
    def link(folder):
        (folder / file).unlink()
        (folder / file).symlink_to(target)

    return link


def claiming(shape, dtype="F32"):
    header = json.dumps(
        {"fusion.scalars.weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, 4 * shape[0]]}}
    ).encode()
    return struct.pack("<Q", len(header)) + header + b"\0" * 100


def many_branches(folder):
    values = json.loads((folder / "config.json").read_text())
    values["branches"] = [{**values["branches"][0], "name": f"b{i}"} for i in range(1000)]
    (folder / "config.json").write_text(json.dumps(values))


class Evil:
    def __reduce__(self):
        return os.system, ("echo ran",)


def replaced(content, pattern):
    return words(
        normalizer={
            "type": "Sequence",
            "normalizers": [{"type": "Replace", "pattern": pattern, "content": content}] * 8,
        }
    )


def spaces_joined(folder):
    whole = json.loads((folder / "tokenizer.json").read_text())
    whole["normalizer"]["normalizers"] += [{"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}] * 8
    (folder / "tokenizer.json").write_text(json.dumps(whole))


def split_by(pattern):
    return words(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    )


def bytepairs(**values):
    def change(folder):
        whole = json.loads((folder / "tokenizer.json").read_text())
        whole["model"] = {"type": "BPE", "vocab": whole["model"]["vocab"], "merges": [], "unk_token": "[UNK]", **values}
        (folder / "tokenizer.json").write_text(json.dumps(whole))

    return change


REFUSED = {  # what is wrong: the change, and words of the sentence
    "code by auto_map": (
        settings(auto_map={"AutoTokenizer": ["evil.Tok", None]}, tokenizer_class="Tok"),
        "asks to run code",
    ),
    "a kernel of the Hub": (
        text(_attn_implementation="kernels-community/flash-attn"),
        "does not know _attn_implementation",
    ),
    "the same as an argument": (text(attn_implementation="a/b"), "does not know attn_implementation"),
    "a quantizer": (text(quantization_config={"quant_method": "x"}), "does not know quantization_config"),
    "a decoder": (text(is_decoder=True), "does not know is_decoder"),
    "a function for an activation": (text(hidden_act="torch.load"), "hidden_act of text is one of"),
    "timm's own weights": (args(pretrained=True), "does not know pretrained"),
    "a file for timm": (args(checkpoint_path="/etc/passwd"), "does not know checkpoint_path"),
    "an address for timm": (args(pretrained_cfg={"url": "http://127.0.0.1:9/x"}), "does not know pretrained_cfg"),
    "a backbone of the Hub": (branch(backbone="hf-hub:x/y"), "not an address"),
    "a backbone of a folder": (branch(backbone="local-dir:/tmp"), "not an address"),
    "an unknown key": (config(**{"k" * 9999: 1}), "does not know kkk"),
    "another class": (settings(tokenizer_class="T5Tokenizer"), "class 'T5Tokenizer'"),
    "no class": (settings(tokenizer_class=[1]), "BERT's kind"),
    "padding on the left": (settings(padding_side="left"), "on the left"),
    "a special token that is none": (settings(pad_token="<none>"), "wordpiece as pad_token"),
    "ids beyond the embedding": (words("model", "vocab", zzz=5000), "up to 5000, the model embeds 300"),
    "special ids beyond it": (words("post_processor", "special_tokens", "[CLS]", ids=[5000]), "between"),
    "special ids of nothing": (words("post_processor", special_tokens={}), "does not define"),
    "no frame": (words(post_processor=None), "between [CLS] and [SEP]"),
    "words cut at random": (bytepairs(dropout=0.5), "at random"),
    "words cut for ever": (words("model", max_input_chars_per_word=10**9), "at most 1000"),
    "a passage that grows": (replaced("xx", {"String": "e"}), "over 64 characters"),
    "a passage that grows everywhere": (replaced("x", {"Regex": "|"}), "over 64 characters"),
    "a pattern without an end": (split_by("(x+x+)+y"), "pattern that repeats"),
    "another, behind a plain one": (split_by(" {2,}|(x|xx)+y"), "pattern that repeats"),
    "a tokenizer nested deeply": (
        written("tokenizer.json", '{"model":' + "[" * 5000 + "]" * 5000 + "}"),
        "tokenizer.json cannot be read",
    ),
    "a tokenizer of nothing": (written("tokenizer.json", "{}"), "tokenizer.json"),
    "a huge tokenizer": (written("tokenizer.json", b" " * 64_000_001), "larger than 64 MB"),
    "no settings": (lambda folder: (folder / "tokenizer_config.json").unlink(), "tokenizer_config.json is missing"),
    "a config of a list": (written("config.json", "[]"), "made of named values"),
    "a config of nothing": (written("config.json", "{}"), "needs branches, text"),
    "a config nested deeply": (written("config.json", "[" * 200_000), "nested too deeply"),
    "half a character": (config(name="\ud800"), "config.json cannot be read"),
    "no temperature": (config(temperature=float("nan")), "NaN is no number"),
    "a word for a temperature": (config(temperature="1"), "temperature of the model is a number"),
    "no threshold": (config(threshold=None), "threshold of the model is a number"),
    "a picture of nothing": (branch(image_size=0), "image_size of a branch is a whole number"),
    "a size in words": (branch(image_size="96"), "not '96'"),
    "a huge picture": (branch(image_size=20_000), "image_size of a branch is a whole number from 8 to 1024"),
    "another picture": (branch(image_size=48), "does not take pictures of 48 px"),
    "two means": (branch(mean=[0.5, 0.5]), "mean of a branch is a list of 3"),
    "no deviation": (branch(std=[0, 0, 0]), "std of a branch"),
    "a flag in words": (branch(project="yes"), "true or false"),
    "many branches": (many_branches, "1 to 8 image branches"),
    "a wide text": (text(hidden_size=100_000), "hidden_size of text"),
    "a rather wide text": (text(hidden_size=8192), "of another shape: "),
    "a tall text": (text(num_hidden_layers=10_000), "num_hidden_layers of text"),
    "a rather tall text": (text(num_hidden_layers=128), "2016 missing: text.encoder.layer.2."),
    "a large vocabulary": (text(vocab_size=10**9), "vocab_size of text"),
    "a rather large vocabulary": (text(vocab_size=10**6), "word_embeddings.weight [300, 32] for [1000000, 32]"),
    "a wide ViT": (args(embed_dim=100_000), "embed_dim of backbone_args"),
    "a rather wide ViT": (args(embed_dim=8192), "of another shape: "),
    "a tall ViT": (args(depth=10_000), "depth of backbone_args"),
    "many small patches": (args(patch_size=1, img_size=40), "of another shape: "),
    "another form of attention": (args(qk_norm=True), "not a plain ViT"),
    "an empty file": (written(TENSORS, b""), "no safetensors file, or it is cut off"),
    "a cut file": (lambda folder: os.truncate(folder / TENSORS, 9000), "no safetensors file, or it is cut off"),
    "a byte too few": (lambda folder: os.truncate(folder / TENSORS, (folder / TENSORS).stat().st_size - 1), "cut off"),
    "a header of 10 GB": (written(TENSORS, struct.pack("<Q", 10 * 2**30) + b"{}"), "header too large"),
    "a claim of 40 GB": (written(TENSORS, claiming([10**10])), "no safetensors file, or it is cut off"),
    "a pickle": (written(TENSORS, pickle.dumps(Evil())), "no safetensors file"),
    "a folder for a file": (
        lambda folder: ((folder / TENSORS).unlink(), (folder / TENSORS).mkdir()),
        "no model.safetensors",
    ),
    "a pickle alone": (
        lambda folder: ((folder / TENSORS).unlink(), written("pytorch_model.bin", pickle.dumps(Evil()))(folder)),
        "no model.safetensors",
    ),
    "an endless file": (linked(TENSORS, "/dev/zero"), "no model.safetensors"),
    "tensors from elsewhere": (linked(TENSORS, __file__), "leads out of the folder"),
    "a config from elsewhere": (linked("config.json", __file__), "leads out of the folder"),
    "a tokenizer from elsewhere": (linked("tokenizer.json", __file__), "leads out of the folder"),
    "a tensor too few": (
        tensors(lambda v: {k: x for k, x in v.items() if k != "fusion.scalars.weight"}),
        "1 missing: fusion.scalars.weight",
    ),
    "a tensor too many": (tensors(lambda v: v.update({"evil\x1b[2J": torch.zeros(1)})), "1 unexpected: evil [2J"),
    "a tensor of another shape": (
        tensors(lambda v: v.update(scale=torch.zeros(1))),
        "1 of another shape: scale [1] for []",
    ),
    "whole numbers": (
        tensors(lambda v: v.update({"fusion.scalars.weight": v["fusion.scalars.weight"].int()})),
        "of another kind: fusion.scalars.weight I32",
    ),
    "a quarter of a number": (
        tensors(lambda v: v.update({"fusion.scalars.weight": v["fusion.scalars.weight"].to(torch.float8_e4m3fn)})),
        "of another kind: fusion.scalars.weight F8",
    ),
    "a weight that is no number": (
        tensors(lambda v: v.update(none_logit=torch.tensor(float("inf")))),
        "not finite: none_logit",
    ),
    "statistics that cannot be": (
        tensors(lambda v: v.update({k: -x for k, x in v.items() if "running_var" in k})),
        "no number for a first pair",
    ),
}
LOADED = {  # what is unusual and harmless
    "spaces that become one": spaces_joined,
    "code that nobody asked for": written("tokenization_evil.py", "raise SystemExit"),
    "a pickle beside": written("pytorch_model.bin", pickle.dumps(Evil())),
    "files that transformers would read": lambda folder: [
        written(name, "{broken")(folder)
        for name in (
            "generation_config.json",
            "adapter_config.json",
            "added_tokens.json",
            "chat_template.jinja",
            "vocab.txt",
        )
    ],
    "names of other files": settings(
        vocab_file="/etc/passwd", tokenizer_file="/etc/passwd", name_or_path="a/b", fast_tokenizer_files=["../x"]
    ),
    "an absurd length": settings(model_max_length=-5),
    "special tokens written out": settings(unk_token={"content": "[UNK]", "special": True}),
    "padding of its own": words(
        padding={
            "strategy": {"Fixed": 10**9},
            "direction": "Left",
            "pad_to_multiple_of": 10**6,
            "pad_id": 5000,
            "pad_type_id": 0,
            "pad_token": "q",
        },
        truncation={"direction": "Left", "max_length": 3, "strategy": "LongestFirst", "stride": 500},
    ),
    "a link within": lambda folder: (
        (folder / TENSORS).rename(folder / "w.bin"),
        (folder / TENSORS).symlink_to("w.bin"),
    ),
    "half precision": tensors(lambda v: {k: x.half() if x.is_floating_point() else x for k, x in v.items()}),
    "a card from elsewhere": linked("README.md", "/etc/passwd"),
    "scores from elsewhere": linked("metrics.json", __file__),
    "scores nested deeply": written("metrics.json", '{"test":' * 20_000 + "1" + "}" * 20_000),
    "endless scores": written("metrics.json", '{"test": {"f1_macro": 1e999, "pairs": 1e999}}'),
    "scores of many digits": written("metrics.json", '{"test": {"f1_macro": ' + "9" * 400 + ', "pairs": 1}}'),
    "scores without a number": written("metrics.json", '{"test": {"f1_macro": NaN, "pairs": NaN}}'),
    "half a character in the caveat": written("metrics.json", '{"caveat": "\\ud800"}'),
    "a script in the caveat": written("metrics.json", '{"caveat": "<script>alert(1)</script> {0} {x.__class__}"}'),
    "a huge card": written("README.md", "x" * 5_000_000),
    "a card that is no text": written("README.md", b"\xff\xfe"),
}


def copy_of(folder, tmp_path, change):
    copy = tmp_path / "weights"
    shutil.copytree(folder, copy)
    (copy / "README.md").write_text("# A card")
    (copy / "metrics.json").write_text("{}")
    change(copy)
    return copy


@pytest.mark.parametrize("wrong", REFUSED)
def test_weights_that_cannot_be_used_are_refused_in_one_sentence(wrong, folder, tmp_path):
    change, said = REFUSED[wrong]
    copy = copy_of(folder, tmp_path, change)
    started = time.process_time()
    with watched(copy), pytest.raises(WeightsError) as error:
        MustiPipeline.from_pretrained(copy, device="cpu")
    sentence = str(error.value)
    assert said in sentence and sentence.isprintable() and len(sentence) < 600
    assert time.process_time() - started < 20  # nothing large was built


@pytest.mark.parametrize("unusual", LOADED)
def test_what_is_unusual_and_harmless_loads_and_answers(unusual, folder, tmp_path):
    copy = copy_of(folder, tmp_path, LOADED[unusual])
    with watched(copy):
        pipe = MustiPipeline.from_pretrained(copy, device="cpu", precision="float32")
        pipe.weights.readme()
    banner, card = weights_banner(pipe, None), card_markdown(pipe)
    expected = MustiPipeline.from_pretrained(folder, device="cpu", precision="float32")
    picture = Image.effect_noise((40, 30), 80).convert("RGB")
    assert pipe(picture, TEXT).logit == pytest.approx(
        expected(picture, TEXT).logit, abs=0.05 if "half prec" in unusual else 1e-5
    )
    (banner + card).encode()
    assert "<script" not in banner + card and "root:" not in card and len(card) < 1_100_000


def test_the_command_and_the_page_say_the_sentence(folder, tmp_path, capsys, monkeypatch):
    copy = copy_of(folder, tmp_path, settings(auto_map={"AutoTokenizer": ["evil.Tok", None]}))
    assert main(["x.png", TEXT, "--weights", str(copy)]) == 2
    said = capsys.readouterr()
    assert said.err.count("\n") == 1 and "asks to run code" in said.err and not said.out
    monkeypatch.setenv("MUSTI_MODEL", str(copy))
    pipe, problem = app.load_pipeline()
    assert pipe.name == "embedded starter" and "asks to run code" in problem and "starter weights instead" in problem
    assert "asks to run code" in weights_banner(pipe, problem)


def test_a_file_and_an_odd_name_are_no_folder(folder):
    for source in (folder / TENSORS, "x" * 5000, "a\0b", "hf://a/b"):
        with pytest.raises(WeightsError, match="no weights at"):
            MustiPipeline.from_pretrained(source)


def test_the_hub_s_cache_keeps_its_files_beside_its_folders(folder, tmp_path):
    blobs, snapshot = tmp_path / "models--me--x" / "blobs", tmp_path / "models--me--x" / "snapshots" / "0123"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    assert MustiPipeline.from_pretrained(snapshot, device="cpu").name == str(snapshot)


@pytest.mark.parametrize(
    "card",
    [
        "![a](http://127.0.0.1:9/x.png)",
        "![a][b]\n\n[b]: http://127.0.0.1:9/x.png",
        "!!![![a](b)[c](http://127.0.0.1:9/x)",
        "<img src=//x>",
        "<im<b>g src=//x>",
        "<script>alert(1)</script>",
        "<!-- <img src=//x> -->",
        "!<b>[a](//x)",
        "<" * 900_000,
        "![" * 400_000,
        "![](" * 200_000,
        "<a" * 400_000,
    ],
    ids=lambda card: card[:20],
)
def test_a_card_shows_no_picture_and_no_tag_of_a_stranger(card, folder, tmp_path):
    copy = copy_of(folder, tmp_path, written("README.md", f"---\nlicense: mit\n---\n# Card\n{card}"))
    started = time.process_time()
    shown = card_markdown(MustiPipeline.from_pretrained(copy, device="cpu"))
    assert shown.startswith("Card") and "![" not in shown and "<" not in shown
    assert time.process_time() - started < 10


def test_a_tokenizer_is_all_in_its_file(tmp_path, tokenizer):
    """What is loaded cuts passages as what was saved, for the class of transformers that the published weights use
    too."""
    vocabulary = {
        w: i
        for i, w in enumerate(
            ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "rose", "##s", "Ro", "##se", "é", "e", "##l", "##t", ","]
        )
    }
    for number, saved in enumerate(
        (
            tokenizer,
            BertTokenizer(vocab=vocabulary, do_lower_case=False),
            BertTokenizer(vocab=vocabulary, do_lower_case=True),
        )
    ):
        saved.save_pretrained(tmp_path / str(number))
        loaded = load_tokenizer(tmp_path / str(number))
        for passage in ("Roses, roses; rose élt 漢.", "Été, l'été"):
            assert loaded(passage)["input_ids"] == saved(passage)["input_ids"]
        assert [loaded.pad_token_id, loaded.cls_token_id, loaded.sep_token_id] == [
            saved.pad_token_id,
            saved.cls_token_id,
            saved.sep_token_id,
        ]
        loaded.save_pretrained(tmp_path / "again")
        assert load_tokenizer(tmp_path / "again")(passage)["input_ids"] == saved(passage)["input_ids"]


@pytest.mark.parametrize("kind", [int, np.int64])
def test_values_of_numpy_are_numbers(kind):
    assert tiny_config(text_length=kind(20), threshold=np.float64(0.4), temperature=np.float32(2)).text_length == 20
    for wrong in (True, 20.0, float("nan"), "20", None):
        with pytest.raises(ValueError, match="text_length"):
            tiny_config(text_length=wrong)


def test_every_size_a_config_can_say_is_bounded():
    for changes in (
        {"branches": (ImageBranchConfig("a", "resnet18", {"layers": [128] * 5}),)},
        {
            "text": tiny_config().text
            | {
                "num_hidden_layers": 128,
                "num_attention_heads": 256,
                "hidden_size": 256,
                "max_position_embeddings": 1024,
            },
            "text_length": 1024,
        },
    ):
        with pytest.raises(ValueError, match="layers"):
            tiny_config(**changes)
    for value in ({"a": 1}, [[1]], "x" * 41, "os.system", float("inf"), 10**9):
        with pytest.raises(ValueError, match="backbone_args"):
            ImageBranchConfig("a", "resnet18", {"act_layer" if isinstance(value, str) else "embed_dim": value})
    assert isinstance(tiny_config(), MustiConfig)


def test_weights_of_a_tokenizer_that_was_not_theirs_are_refused(tmp_path, tokenizer):
    model = tiny_model(text=tiny_config().text | {"vocab_size": 100})
    model.save_pretrained(tmp_path)
    MustiProcessor(model.config, tokenizer).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="the model embeds 100"):
        MustiPipeline.from_pretrained(tmp_path)
