"""Tiny random models and tokenizers that the tests make; nothing is fetched."""

import os
from collections import Counter

# One thread for this process and each that it starts: those of the tests share the cores, and a thread that waits
# for another keeps its core busy.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from musti_model import ImageBranchConfig, MustiConfig, MustiModel, MustiPipeline, MustiProcessor
from tests.wordpieces import train_tokenizer

torch.set_num_threads(1)
pytest_plugins = ["tests.browser"]

PASSAGE = "The roses smelled sweet in the garden."
ANSWER = {  # what every endpoint and the command line say of a pair
    "label",
    "probability",
    "threshold",
    "similarities",
    "notices",
    "unsure",
    "objects_in_picture",
    "objects_in_passage",
}
TEXTS = [
    "The roses smelled sweet in the garden of the old house.",
    "Die Hunde liefen über die Straße zum Bäcker.",
    "L'odeur de la forêt après l'orage, c'était l'été.",
    "L'odore del caffè e del pane riempiva la città.",
    "Čebele so letele nad cvetlicami, žena je kuhala čaj.",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that open the page most go first: they take longest, and a file is one process's (see the Makefile)."""
    opens = Counter(item.path for item in items if "browser" in item.fixturenames)
    items.sort(key=lambda item: -opens[item.path])


SIZES = {"vit": 40, "resnet": 48}  # px of the tiny model's branches
GRIDS = {"vit": (5, 4), "resnet": (3, 3)}  # rows, columns
VIT_ARGS = {"img_size": 40, "patch_size": [8, 10], "embed_dim": 24, "depth": 2, "num_heads": 2, "reg_tokens": 2}


def tiny_config(**changes) -> MustiConfig:
    """Two branches, 32 features, two layers, a text grid of 32. Nothing that may differ is alike: the branches' sizes,
    grids, widths and pixel ranges, rows and columns, registers before the places, a padding sign that is not 0, a
    temperature that is not 1, a threshold that is not .5."""
    values = {
        "branches": (
            ImageBranchConfig("vit", "vit_base_patch16_224", VIT_ARGS, image_size=40),
            ImageBranchConfig(
                "resnet",
                "resnet18",
                {"channels": [8, 16, 24, 40], "output_stride": 16},
                image_size=48,
                mean=(0.5, 0.45, 0.4),
                std=(0.2, 0.25, 0.3),
                resample="bilinear",
            ),
        ),
        "text": {
            "vocab_size": 300,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
            "pad_token_id": 1,
        },
        "text_length": 32,
        "objects": ("flower", "dog", "fish"),
        "threshold": 0.37,
        "temperature": 1.6,
        "name": "tiny",
    }
    return MustiConfig(**(values | changes))


GATES = {  # every kind of gate and meeting
    "scalar": {},
    "scalar by content": {"meeting": "content"},
    "word": {"gate": "word", "meeting": "content"},
    "word by place": {"gate": "word"},
    "linear": {"gate": "linear", "meeting": "content"},
    "linear by place": {"gate": "linear"},
}
WORD = GATES["word"]
VOTES = (0.9, -0.35, 0.5)  # of the first, second, third branch
SCALE, BIAS, VOTING_BIAS = 7.0, -0.6, 0.15


def tiny_model(**changes) -> MustiModel:
    """Random, with votes of unequal weight and sign, and with a gate that matters and differs from word to word where
    it can."""
    torch.manual_seed(0)
    model = MustiModel(tiny_config(**changes)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        model.voting.weight.copy_(torch.tensor([VOTES[: len(model.branches)]]))
        model.voting.bias.fill_(VOTING_BIAS)
        model.scale.fill_(SCALE)
        model.bias.fill_(BIAS)
        # unequal places
        model.final_projection.weight.add_(0.02 * torch.randn(model.final_projection.weight.shape, generator=generator))
        # else all words would be of one length, and blocks of the ResNet would pass on what they got
        for module in model.modules():
            if isinstance(module, torch.nn.LayerNorm | torch.nn.BatchNorm2d) and module is not model.fusion.norm:
                module.weight.add_(0.3 * torch.randn(module.weight.shape, generator=generator))
        for branch in model.branches.values():
            for name in ("cls_token", "reg_token"):  # timm starts them all at practically 0
                if branch.is_vit and getattr(branch.backbone, name) is not None:
                    token = getattr(branch.backbone, name)
                    token.add_(torch.randn(token.shape, generator=generator))
        if model.config.gate == "scalar":
            model.fusion.scalars.weight.copy_(torch.tensor([[0.7, -0.2]]))
            model.fusion.scalars.bias.fill_(0.1)
        if model.config.gate in ("word", "linear"):
            model.fusion.pass_on.weight.add_(0.1 * torch.randn(32, 32, generator=generator))
        if model.config.gate == "word":
            model.fusion.alpha.fill_(6.0)
            model.fusion.beta.fill_(-0.5)
            model.fusion.word_score.weight.copy_(0.3 * torch.randn(1, 32, generator=generator))
        if model.config.gate == "linear":
            model.fusion.classifier.weight.copy_(0.3 * torch.randn(1, 64, generator=generator))
        if model.fusion.space is not None:
            model.fusion.space.tau.fill_(9.0)
            for side in (model.fusion.space.word, model.fusion.space.place):
                side.weight.add_(0.3 * torch.randn(32, 32, generator=generator))
    return model


@pytest.fixture(scope="session")
def tokenizer():
    return train_tokenizer(TEXTS, [], 300, 32)


@pytest.fixture(scope="session")
def folder(tmp_path_factory, tokenizer):
    """Saved weights of a tiny model."""
    path = tmp_path_factory.mktemp("weights")
    model = tiny_model()
    model.save_pretrained(path)
    MustiProcessor(model.config, tokenizer).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def pipe(folder):
    return MustiPipeline.from_pretrained(folder, device="cpu", precision="float32")


@pytest.fixture(scope="session")
def word_pipe(tokenizer):
    """Weights whose gate opens word by word."""
    return pipeline(tokenizer, **WORD)


@pytest.fixture(scope="session")
def page_pipe(tmp_path_factory, tokenizer):
    """Weights of the page, as loaded: a gate that opens word by word, and room for a sentence or two."""
    text = tiny_config().text | {"max_position_embeddings": 128}
    made, path = pipeline(tokenizer, text=text, text_length=128, **WORD), tmp_path_factory.mktemp("page") / "tiny"
    made.model.save_pretrained(path)
    made.processor.save_pretrained(path)
    return MustiPipeline.from_pretrained(path, device="cpu", precision="float32")


def pipeline(tokenizer, **changes) -> MustiPipeline:
    """A tiny model's pipeline, in float32."""
    model = tiny_model(**changes)
    return MustiPipeline(model, MustiProcessor(model.config, tokenizer), device="cpu", precision="float32")


@pytest.fixture(scope="session")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))


@pytest.fixture
def question(pipe, picture):
    return pipe.ask(picture, PASSAGE)
