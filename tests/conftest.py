"""Tiny random models and tokenizers that the tests make; nothing is fetched."""

import os

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import pytest
import torch

from musti_model import ImageBranchConfig, MustiConfig, MustiModel, MustiPipeline, MustiProcessor
from training.starter.tokenizer import train_tokenizer

torch.set_num_threads(1)
pytest_plugins = ["tests.browser"]


TEXTS = [
    "The roses smelled sweet in the garden of the old house.",
    "Die Hunde liefen über die Straße zum Bäcker.",
    "L'odeur de la forêt après l'orage, c'était l'été.",
    "L'odore del caffè e del pane riempiva la città.",
    "Čebele so letele nad cvetlicami, žena je kuhala čaj.",
]


def tiny_config(**changes) -> MustiConfig:
    """Two branches, 32 features, two layers, a text grid of 32."""
    values = {
        "branches": (
            ImageBranchConfig(
                "vit", "vit_base_patch16_224", {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}, image_size=32
            ),
            ImageBranchConfig("resnet", "resnet18", {"channels": [8, 16, 32, 32], "output_stride": 16}, image_size=64),
        ),
        "text": {
            "vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "max_position_embeddings": 64,
        },
        "text_length": 32,
        "objects": ("flower", "dog", "fish"),
        "name": "tiny",
    }  # fmt: skip
    return MustiConfig(**(values | changes))


def tiny_model(**changes) -> MustiModel:
    """Random, but with a gate that matters."""
    torch.manual_seed(0)
    model = MustiModel(tiny_config(**changes)).eval()
    with torch.no_grad():
        model.gate.weight.copy_(torch.tensor([[0.7, -0.2]]))
        model.gate.bias.fill_(0.1)
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
