"""Everything a MUSTI model is made of, typed, checked, saved as JSON beside the weights."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

Gate = Literal["scalar", "linear", "word", "none"]
MeetingKind = Literal["place", "content"]
HALF = (0.5, 0.5, 0.5)


def _only_known(cls: type, values: dict[str, Any]) -> dict[str, Any]:
    unknown = sorted(set(values) - {f.name for f in fields(cls)})
    if unknown:
        raise ValueError(f"{cls.__name__} does not know {', '.join(unknown)}; check the spelling in config.json.")
    return values


@dataclass(frozen=True)
class ImageBranchConfig:
    """One image branch.

    name: how outputs call it; backbone, backbone_args: of ``timm.create_model``; image_size: side in px of the square the
    whole picture is resized to; mean, std: per channel, for pixels in 0..1; axes: "natural" (channels become features, places
    become tokens) or "published" (CNN and Swin only: the axes of the published code, REFERENCE flaw: channels or a learned mix
    become tokens, so a token has no place in the picture); project: natural axes: learn a projection also for a ViT as wide as the
    text, whose tokens else enter as they are (as published); resample: "bicubic" or "bilinear" (as published); norm_eps: epsilon for all LayerNorms of the backbone, ``None`` keeps timm's.
    """

    name: str
    backbone: str
    backbone_args: dict[str, Any] = field(default_factory=dict)
    image_size: int = 224
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    axes: str = "natural"
    project: bool = False
    norm_eps: float | None = None
    resample: str = "bicubic"

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if not self.name.isidentifier():
            raise ValueError(f"A branch's name is letters, digits and underscores, not {self.name!r}.")
        if ":" in self.backbone:
            raise ValueError(f"backbone is a timm architecture, not an address: {self.backbone!r}.")
        if self.resample not in ("bicubic", "bilinear"):
            raise ValueError(f'resample is "bicubic" or "bilinear", not {self.resample!r}.')
        if self.axes not in ("natural", "published"):
            raise ValueError(f'axes is "natural" or "published", not {self.axes!r}.')


@dataclass(frozen=True)
class MustiConfig:
    """The whole model; every published variant is one of these.

    branches: the image branches; text: what ``TextTower`` takes ("model_type", "bert" where it is left out, and the arguments of that kind's
    configuration); text_length: the text's grid in wordpieces, the special tokens included.

    gate: how far the picture is let into the text (see ``fusion``): "scalar" (the published three scalars), "word" (a value for each word, by how
    well it agrees with the places it meets), "linear" (a value for each word, linear in word and places side by side) or "none"; meeting: which
    places a word meets: "place" (by reading order, as published) or "content" (those that look like what the word means).

    voting: "learned" (linear in the cosines) or "mean".

    padding: "carry" (as published: the text is padded to ``text_length``, padded positions take part and bring the lower part of
    the picture) or "mask" (padded positions are masked; the picture's places are spread evenly over the passage's own
    wordpieces, so that the whole picture reaches a passage of any length).

    logit: "affine" (learned scale and bias before the sigmoid) or "published" (the vote itself, which with one branch keeps the
    probability between .27 and .73).

    objects: names of the objects that the naming head knows, empty for a model without one; naming_scale: naming logits are this times a cosine; threshold, temperature: decision
    threshold on the probability and divisor of the logit, both chosen on development pairs; name: shown to people.
    """

    branches: tuple[ImageBranchConfig, ...]
    text: dict[str, Any]
    text_length: int = 197
    gate: Gate = "scalar"
    meeting: MeetingKind = "place"
    voting: str = "learned"
    padding: str = "mask"
    logit: str = "affine"
    objects: tuple[str, ...] = ()
    naming_scale: float = 10.0
    threshold: float = 0.5
    temperature: float = 1.0
    name: str = "musti"

    def __post_init__(self) -> None:
        branches = tuple(
            ImageBranchConfig(**_only_known(ImageBranchConfig, b)) if isinstance(b, dict) else b for b in self.branches
        )
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "objects", tuple(self.objects))
        names = [b.name for b in branches]
        if not names or len(set(names)) != len(names):
            raise ValueError("A model needs at least one image branch, each with a name of its own.")
        for key, allowed in (
            ("gate", get_args(Gate)),
            ("meeting", get_args(MeetingKind)),
            ("voting", ("learned", "mean")),
            ("padding", ("carry", "mask")),
            ("logit", ("affine", "published")),
        ):
            if getattr(self, key) not in allowed:
                raise ValueError(f"{key} is one of {', '.join(allowed)}, not {getattr(self, key)!r}.")
        if not 0 <= self.threshold <= 1:
            raise ValueError("threshold is a probability, 0 to 1.")
        if self.temperature <= 0:
            raise ValueError("temperature is above 0.")
        if self.text_length < 3 or self.text_length > self.text.get("max_position_embeddings", 512):
            raise ValueError("text_length must be at least 3 and at most max_position_embeddings.")

    @property
    def tokenizer_padding(self) -> str:
        """How a tokenizer pads a batch: to the whole text grid where padding takes part, else to the longest passage."""
        return "max_length" if self.padding == "carry" else "longest"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as saved in config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MustiConfig":
        """From plain values. Raises ValueError for an unknown key or a value out of range."""
        return cls(**_only_known(cls, dict(values)))

    @classmethod
    def load(cls, folder: str | Path) -> "MustiConfig":
        """From ``folder/config.json``. Raises ValueError, FileNotFoundError."""
        return cls.from_dict(json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")))


# Size of bert-base-multilingual-cased (Devlin et al. 2019).
BERT_MULTILINGUAL = {
    "vocab_size": 119547,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 512,
}
_VIT = ImageBranchConfig("vit", "vit_base_patch16_224.orig_in21k")
_RESNET34 = ImageBranchConfig("resnet", "resnet34.a1_in1k", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
_PUBLISHED = {"padding": "carry", "logit": "published", "text": BERT_MULTILINGUAL}
_PUBLISHED_VIT = ImageBranchConfig("vit", "vit_base_patch16_224.orig_in21k", norm_eps=1e-12, resample="bilinear")
_PUBLISHED_RESNET = ImageBranchConfig("resnet", "resnet50.a1_in1k", axes="published", resample="bilinear")
_PUBLISHED_SWIN = ImageBranchConfig("swin", "swin_tiny_patch4_window7_224.ms_in1k", axes="published", norm_eps=1e-5, resample="bilinear")

# Size of multilingual-e5-small (Wang et al. 2024) with a vocabulary cut to the languages and corpora at hand.
E5_SMALL = {
    "model_type": "bert",
    "vocab_size": 29634,
    "hidden_size": 384,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
    "type_vocab_size": 2,
    "pad_token_id": 1,
}
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_STARTER_VIT = ImageBranchConfig(
    "vit", "vit_small_patch14_dinov2", {"img_size": 168, "depth": 7}, image_size=168, project=True, **_IMAGENET
)
_STARTER_CNN = ImageBranchConfig(
    "cnn", "tf_efficientnet_lite0", {"output_stride": 16}, image_size=168, mean=(0.498, 0.498, 0.498), std=(0.502, 0.502, 0.502)
)


def preset(name: str, **changes: Any) -> MustiConfig:
    """A named configuration, with changes.

    Names: "musti-base" (ViT-B/16 + ResNet-34 + multilingual BERT), "musti-word" (the same with a gate for each word), "published" (ViT-B/16 + ResNet-50, as the authors' code),
    "published-all" (+ Swin-T), "starter" (compact, embedded in this repository).

    Raises: ValueError for an unknown name or change.
    """
    presets: dict[str, dict[str, Any]] = {
        "musti-base": {"branches": (_VIT, _RESNET34), "text": BERT_MULTILINGUAL},
        "musti-word": {"branches": (_VIT, _RESNET34), "text": BERT_MULTILINGUAL, "gate": "word", "meeting": "content"},
        "published": {"branches": (_PUBLISHED_VIT, _PUBLISHED_RESNET), **_PUBLISHED},
        "published-all": {"branches": (_PUBLISHED_VIT, _PUBLISHED_RESNET, _PUBLISHED_SWIN), **_PUBLISHED},
        "starter": {"branches": (_STARTER_VIT, _STARTER_CNN), "text": E5_SMALL, "text_length": 512, "gate": "word", "meeting": "content",
                    "naming_scale": 16.0},
    }
    if name not in presets:
        raise ValueError(f"No preset {name!r}; there are {', '.join(presets)}.")
    return MustiConfig.from_dict({"name": name, **presets[name], **changes})
