"""Everything a MUSTI model is made of, typed, checked, saved as JSON beside the weights."""

import re
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from .checks import Check, check_values, flag, maybe, number, one_of, one_or_several, several, text, whole
from .folder import read_json
from .older import renamed_config

Gate = Literal["scalar", "linear", "word", "none"]
MeetingKind = Literal["place", "content"]
HALF = (0.5, 0.5, 0.5)
MAX_SIDE = 1024  # px of a picture as a branch sees it
MAX_BRANCHES = 8
MAX_BLOCKS = 128  # of one stack of layers; the largest known have fewer
MAX_ALL_BLOCKS = 512
MAX_WIDTH = 8192
MAX_ATTENTION = 1_000_000_000  # numbers in one pair's attention maps, 4 GB

# Weights of strangers bring a config.json. Only what says how large a thing is and how it is wired may stand there:
# nothing that has timm or transformers fetch, open or run something.
_SIZES = one_or_several(whole(1, MAX_WIDTH))
_COUNTS = one_or_several(whole(1, MAX_BLOCKS))
_SHARE = number(0, 1)
_WORD = text(40, r"\w*", "a word")
BACKBONE_ARGS: dict[str, Check] = {
    **dict.fromkeys(("img_size", "patch_size"), one_or_several(whole(1, MAX_SIDE), 2)),
    **dict.fromkeys(("depth", "layers", "depths", "num_heads", "window_size", "kernel_sizes"), _COUNTS),
    **dict.fromkeys(
        ("embed_dim", "channels", "dims", "base_width", "cardinality", "stem_width", "stem_size", "head_dim"), _SIZES
    ),
    "output_stride": whole(4, 32),
    "reg_tokens": whole(0, 64),
    "mlp_ratio": one_or_several(number(0.01, 32)),
    **dict.fromkeys(("init_values", "ls_init_value"), maybe(number(0, 10))),
    **dict.fromkeys(
        ("drop_rate", "pos_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate", "drop_block_rate"), _SHARE
    ),
    **dict.fromkeys(
        (
            "qkv_bias",
            "qk_norm",
            "proj_bias",
            "class_token",
            "no_embed_class",
            "pre_norm",
            "final_norm",
            "dynamic_img_size",
            "dynamic_img_pad",
            "strict_img_size",
            "always_partition",
            "avg_down",
            "replace_stem_pool",
            "conv_mlp",
            "use_grn",
        ),
        flag,
    ),
    "fc_norm": maybe(flag),
    **dict.fromkeys(("global_pool", "pos_embed", "stem_type", "weight_init", "act_layer", "norm_layer"), _WORD),
}
_NORM_EPS = number(1e-15, 0.1)
_BRANCH: dict[str, Check] = {
    "name": text(40),
    "backbone": text(100),
    "image_size": whole(8, MAX_SIDE),
    "mean": several(number(-10, 10), 3, 3),
    "std": several(number(1e-3, 100), 3, 3),
    "axes": one_of("natural", "published"),
    "project": flag,
    "norm_eps": maybe(_NORM_EPS),
    "resample": one_of("bicubic", "bilinear"),
}
TEXT_ARGS: dict[str, Check] = {
    "model_type": one_of("bert", "xlm-roberta"),
    "vocab_size": whole(1, 1_000_000),
    "hidden_size": whole(1, MAX_WIDTH),
    "num_hidden_layers": whole(1, MAX_BLOCKS),
    "num_attention_heads": whole(1, 256),
    "intermediate_size": whole(1, 4 * MAX_WIDTH),
    "max_position_embeddings": whole(3, 8192),
    "type_vocab_size": whole(1, 64),
    "pad_token_id": whole(0, 1_000_000),
    "hidden_act": one_of("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "silu", "tanh"),
    "hidden_dropout_prob": _SHARE,
    "attention_probs_dropout_prob": _SHARE,
    "initializer_range": _SHARE,
    "layer_norm_eps": _NORM_EPS,
}
# What BertConfig takes for the sizes that are left out.
_BERT_BASE = {
    "vocab_size": 30522,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
_MODEL: dict[str, Check] = {
    "text_length": whole(3, 1024),
    "gate": one_of(*get_args(Gate)),
    "meeting": one_of(*get_args(MeetingKind)),
    "voting": one_of("learned", "mean"),
    "padding": one_of("carry", "mask"),
    "logit": one_of("affine", "published"),
    "objects": several(text(100, r"[^\n<>]+", "a name"), 0, 100_000),
    "naming_scale": number(1e-3, 1e3),
    "threshold": _SHARE,
    "temperature": number(1e-3, 1e3),
    "name": text(200),
}


def _only_known(cls: type, values: Any) -> dict[str, Any]:
    """Raises ValueError for what is no dictionary, has an unknown key, or lacks one that has to be there."""
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} is made of named values, not {type(values).__name__}.")
    check_values(cls.__name__, values, dict.fromkeys((f.name for f in fields(cls)), lambda _: None))
    missing = [
        f.name for f in fields(cls) if f.name not in values and f.default is MISSING and f.default_factory is MISSING
    ]
    if missing:
        raise ValueError(f"{cls.__name__} needs {', '.join(missing)}.")
    return values


@dataclass(frozen=True)
class ImageBranchConfig:
    """One image branch.

    name: how outputs call it; backbone: of ``timm.create_model``, and backbone_args those arguments of it that
    BACKBONE_ARGS lists; image_size: side in px of the square the whole picture is resized to; mean, std: per channel,
    for pixels in 0..1; axes: "natural" (channels become features, places become tokens) or "published" (CNN and Swin
    only: the axes of the published code: channels or a learned mix become tokens, so a token has no place in the
    picture); project: natural axes: learn a projection also for a ViT as wide as the text, whose tokens else enter as
    they are (as published); resample: "bicubic" or "bilinear" (as published); norm_eps: epsilon for all LayerNorms of
    the backbone, ``None`` keeps timm's.
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
        check_values("a branch", {key: getattr(self, key) for key in _BRANCH}, _BRANCH)
        object.__setattr__(self, "mean", tuple(self.mean))
        object.__setattr__(self, "std", tuple(self.std))
        if not self.name.isidentifier():
            raise ValueError(f"A branch's name is letters, digits and underscores, not {self.name!r}.")
        if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)?", self.backbone):
            raise ValueError(f"backbone is a timm architecture, not an address: {self.backbone!r}.")
        if not isinstance(self.backbone_args, dict):
            raise ValueError("backbone_args is made of named values.")
        check_values("backbone_args", self.backbone_args, BACKBONE_ARGS)


@dataclass(frozen=True)
class MustiConfig:
    """The whole model; every published variant is one of these.

    branches: the image branches; text: what ``TextTower`` takes ("model_type", "bert" where it is left out, and the
    sizes of that kind's configuration that TEXT_ARGS lists); text_length: the text's grid in wordpieces, the special
    tokens included.

    gate: how far the picture is let into the text (see ``fusion``): "scalar" (the published three scalars), "word" (a
    value for each word, by how well it agrees with the places it meets), "linear" (a value for each word, linear in
    word and places side by side) or "none"; meeting: which places a word meets: "place" (by reading order, as
    published) or "content" (those that look like what the word means).

    voting: "learned" (linear in the cosines) or "mean".

    padding: "carry" (as published: the text is padded to ``text_length``, padded positions take part and bring the
    lower part of the picture) or "mask" (padded positions are masked; the picture's places are spread evenly over the
    passage's own wordpieces, so that the whole picture reaches a passage of any length).

    logit: "affine" (learned scale and bias before the sigmoid) or "published" (the vote itself, which with one branch
    keeps the probability between .27 and .73).

    objects: names of the objects that the naming head knows, empty for a model without one; naming_scale: naming logits
    are this times a cosine; threshold, temperature: decision threshold on the probability and divisor of the logit,
    both chosen on development pairs; name: shown to people.
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
        if not isinstance(self.branches, (list, tuple)) or not 1 <= len(self.branches) <= MAX_BRANCHES:
            raise ValueError(f"A model has 1 to {MAX_BRANCHES} image branches, in a list.")
        branches = tuple(
            b if isinstance(b, ImageBranchConfig) else ImageBranchConfig(**_only_known(ImageBranchConfig, b))
            for b in self.branches
        )
        check_values("the model", {key: getattr(self, key) for key in _MODEL}, _MODEL)
        object.__setattr__(self, "branches", branches)
        object.__setattr__(self, "objects", tuple(self.objects))
        names = [b.name for b in branches]
        if len(set(names)) != len(names):
            raise ValueError("Each image branch needs a name of its own.")
        if not isinstance(self.text, dict):
            raise ValueError("text is made of named values, the sizes of the text encoder.")
        check_values("text", self.text, TEXT_ARGS)
        sizes = _BERT_BASE | self.text
        if sizes["hidden_size"] % sizes["num_attention_heads"]:
            raise ValueError("hidden_size of text is a multiple of num_attention_heads.")
        if sizes["pad_token_id"] >= sizes["vocab_size"]:
            raise ValueError("pad_token_id of text is below vocab_size.")
        stacks = [b.backbone_args.get(key, 0) for b in branches for key in ("depth", "layers", "depths")]
        if sum(sum(s) if isinstance(s, (list, tuple)) else s for s in stacks) > MAX_ALL_BLOCKS:
            raise ValueError(f"The branches have more than {MAX_ALL_BLOCKS} layers.")
        if self.text_length > sizes["max_position_embeddings"]:
            raise ValueError("text_length must be at least 3 and at most max_position_embeddings.")
        if sizes["num_hidden_layers"] * sizes["num_attention_heads"] * self.text_length**2 > MAX_ATTENTION:
            raise ValueError("text has too many layers and heads for its text_length.")

    @property
    def vocabulary(self) -> int:
        """How many wordpieces the text side embeds."""
        return int((_BERT_BASE | self.text)["vocab_size"])

    @property
    def tokenizer_padding(self) -> str:
        """How a tokenizer pads a batch: to the whole text grid where padding takes part, else to the longest
        passage."""
        return "max_length" if self.padding == "carry" else "longest"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as saved in config.json."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "MustiConfig":
        """From plain values. Raises ValueError for an unknown key or a value out of range."""
        return cls(**_only_known(cls, renamed_config(values)))

    @classmethod
    def load(cls, folder: str | Path) -> "MustiConfig":
        """From ``folder/config.json``. Raises ValueError, FileNotFoundError."""
        return cls.from_dict(read_json(folder, "config.json"))


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
_PUBLISHED_SWIN = ImageBranchConfig(
    "swin", "swin_tiny_patch4_window7_224.ms_in1k", axes="published", norm_eps=1e-5, resample="bilinear"
)

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
    # training changes passages and pictures instead; and dropout inside attention takes the slow path on a CPU
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "pad_token_id": 1,
}
_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_STARTER_VIT = ImageBranchConfig(
    "vit", "vit_small_patch14_dinov2", {"img_size": 168, "depth": 7}, image_size=168, project=True, **_IMAGENET
)
_STARTER_CNN = ImageBranchConfig(
    "cnn",
    "tf_efficientnet_lite0",
    {"output_stride": 16},
    image_size=168,
    mean=(0.498, 0.498, 0.498),
    std=(0.502, 0.502, 0.502),
)

# Small enough to be trained from nothing on two CPU cores; the weights of version 0.1 are of this size.
_COMPACT_VIT = ImageBranchConfig(
    "vit",
    "vit_base_patch16_224",
    {"img_size": 96, "patch_size": 12, "embed_dim": 128, "depth": 6, "num_heads": 4},
    image_size=96,
    project=True,
)
_COMPACT_RESNET = ImageBranchConfig(
    "resnet", "resnet18", {"channels": [32, 64, 128, 192], "output_stride": 16}, image_size=96
)
_COMPACT_TEXT = {
    "vocab_size": 8000,
    "hidden_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "max_position_embeddings": 256,
    "attention_probs_dropout_prob": 0.0,
}


def preset(name: str, **changes: Any) -> MustiConfig:
    """A named configuration, with changes.

    Names: "musti-base" (ViT-B/16 + ResNet-34 + multilingual BERT), "musti-word" (the same with a gate for each word),
    "published" (ViT-B/16 + ResNet-50, as the authors' code), "published-all" (+ Swin-T), "compact" (the size of the
    weights of version 0.1), "starter" (that of the embedded weights: pretrained towers that travel well, with a gate
    for each word).

    Raises: ValueError for an unknown name or change.
    """
    presets: dict[str, dict[str, Any]] = {
        "musti-base": {"branches": (_VIT, _RESNET34), "text": BERT_MULTILINGUAL},
        "musti-word": {"branches": (_VIT, _RESNET34), "text": BERT_MULTILINGUAL, "gate": "word", "meeting": "content"},
        "published": {"branches": (_PUBLISHED_VIT, _PUBLISHED_RESNET), **_PUBLISHED},
        "published-all": {"branches": (_PUBLISHED_VIT, _PUBLISHED_RESNET, _PUBLISHED_SWIN), **_PUBLISHED},
        "compact": {"branches": (_COMPACT_VIT, _COMPACT_RESNET), "text": _COMPACT_TEXT, "text_length": 256},
        "starter": {
            "branches": (_STARTER_VIT, _STARTER_CNN),
            "text": E5_SMALL,
            "text_length": 512,
            "gate": "word",
            "meeting": "content",
            "naming_scale": 16.0,
        },
    }
    if name not in presets:
        raise ValueError(f"No preset {name!r}; there are {', '.join(presets)}.")
    return MustiConfig.from_dict({"name": name, **presets[name], **changes})
