"""The authors' checkpoints -> a folder that MustiPipeline loads: ``python -m musti_model.mmm2024 CKPT.pt OUT``.

Source: MMM2024, "Image-guided Feature Extractor on the MUSTI dataset" (MediaEval 2023). Their file is a torch pickle of
``{"epoch", "model_state_dict", "optimizer_state_dict", "loss"}``, with the encoders named as transformers named them in
late 2023. It is read as weights only: a pickle that asks for anything else is refused, and nothing of it runs.
"""

import argparse
import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .config import ImageBranchConfig, MustiConfig, preset
from .errors import WeightsError
from .model import MustiModel
from .processing import MustiProcessor
from .tokenizer import CLASSES
from .weights import reachable

TOKENIZER = "bert-base-multilingual-cased"
HEAD_WIDTH = 64  # features of one attention head in every published ViT and BERT; no tensor's shape tells it

# What is where --------------------------------------------------------------------------------------------------------


def _less_one(form: str) -> Callable[[re.Match[str]], str]:
    """Fills ``form`` with the groups of a match, the first one less one: counted from 1 (or from the next stage) here,
    from 0 there."""
    return lambda match: form.format(int(match[1]) - 1, *match.groups()[1:])


Renames = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
# Ours (timm's) -> theirs, every row in turn. "qkv" stays: theirs are three tensors, see ``_their_names``.
_BLOCK: Renames = (
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_VIT: Renames = (
    (r"^cls_token", "embeddings.cls_token"),
    (r"^pos_embed", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^blocks\.", "encoder.layer."),
    (r"attn\.qkv", "attention.attention.qkv"),
    *_BLOCK,
    (r"^norm\.", "layernorm."),
)
_RESNET: Renames = (
    (r"^conv1", "embedder.embedder.convolution"),
    (r"^bn1", "embedder.embedder.normalization"),
    (r"^layer(\d+)\.(\d+)", _less_one("encoder.stages.{}.layers.{}")),
    (r"downsample\.0", "shortcut.convolution"),
    (r"downsample\.1", "shortcut.normalization"),
    (r"\.conv(\d)\.", _less_one(".layer.{}.convolution.")),
    (r"\.bn(\d)\.", _less_one(".layer.{}.normalization.")),
)
# The 2x2 neighbours that a Swin merges lie in the same order on both sides; only the stage that owns the merging
# differs.
_SWIN: Renames = (
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^patch_embed\.norm", "embeddings.norm"),
    (r"^layers\.(\d+)\.downsample", _less_one("encoder.layers.{}.downsample")),
    (r"^layers\.", "encoder.layers."),
    (r"attn\.(qkv|relative)", r"attention.self.\1"),
    *_BLOCK,
    (r"^norm\.", "layernorm."),
)
# Their part: (our module, names inside it).
PARTS: dict[str, tuple[str, Renames]] = {
    "text_embedding": ("text.embeddings", ()),
    "text_encoder": ("text.encoder", ()),
    "pooling_layer": ("text.pooler", ()),
    "vit_encoder": ("branches.vit.backbone", _VIT),
    "resnet_encoder.0": ("branches.resnet.backbone", _RESNET),
    "resnet_projection_2": ("branches.resnet.channels_to_grid", ()),
    "resnet_projection_3": ("branches.resnet.places_to_hidden", ()),
    "swintransformer_encoder.0": ("branches.swin.backbone", _SWIN),
    "swintransformer_projection_1": ("branches.swin.places_to_grid", ()),
    "layernorm_197": ("grid_norm", ()),
    "layernorm_768": ("fusion.norm", ()),
    "linear": ("fusion.scalars", ()),
    "final_projection": ("final_projection", ()),
    "voting": ("voting", ()),
}
_COMPUTED = ("relative_position_index", "position_ids", "token_type_ids")  # buffers that follow from the sizes
_BUFFERS = ("running_mean", "running_var", "num_batches_tracked", *_COMPUTED)
_ENCODERS = {"vit": "vit_encoder", "resnet": "resnet_encoder.0", "swin": "swintransformer_encoder.0"}
_BRANCH_PARTS = {
    "vit": {"vit_encoder"},
    "resnet": {"resnet_encoder.0", "resnet_projection_2", "resnet_projection_3", "layernorm_197", "layernorm_768"},
    "swin": {"swintransformer_encoder.0", "swintransformer_projection_1", "layernorm_197"},
}


@dataclass(frozen=True)
class Architecture:
    """A published variant: with the TSF gate or not, its image branches in the order of their votes, a learned vote or
    the mean."""

    gate: bool
    branches: tuple[str, ...]
    learned: bool

    @property
    def parts(self) -> set[str]:
        """The parts of the file (keys of PARTS) that it computes with; the file holds others as well."""
        used = {"text_embedding", "text_encoder", "pooling_layer", "final_projection"}
        used |= {"linear", "layernorm_768"} if self.gate else set()
        used |= {"voting"} if self.learned else set()
        return used.union(*(_BRANCH_PARTS[b] for b in self.branches))


def _architectures() -> dict[str, Architecture]:
    variants = {
        "": (("vit", "resnet", "swin"), True),
        "_hard_voting": (("vit", "resnet", "swin"), False),
        "_ViT": (("vit",), False),
        "_Resnet": (("resnet",), False),
        "_Swin": (("swin",), False),
        "_ViT_Resnet": (("vit", "resnet"), True),
        "_ViT_Resnet_hard_voting": (("vit", "resnet"), False),
        "_ViT_Swin": (("vit", "swin"), True),
        "_Resnet_Swin": (("resnet", "swin"), True),
    }
    return {f + v: Architecture(f == "TSF", *how) for f in ("TSF", "Baseline") for v, how in variants.items()}


ARCHITECTURES = _architectures()


def _part(key: str) -> str | None:
    """The part a key of the file belongs to."""
    return next((p for p in PARTS if key.startswith(p + ".")), None)


def _their_names(key: str) -> list[str]:
    """The keys of the file that make one of our tensors, to be joined along the first axis (query, key, value); [] for
    a tensor of ours only."""
    for part, (ours, renames) in PARTS.items():
        if key.startswith(ours + "."):
            name = key.removeprefix(ours + ".")
            for pattern, theirs in renames:
                name = re.sub(pattern, theirs, name)
            names = [name.replace("qkv", n) for n in ("query", "key", "value")] if "qkv" in name else [name]
            return [f"{part}.{n}" for n in names]
    return []


# Reading --------------------------------------------------------------------------------------------------------------


class _Skipped:
    """Stands for a NumPy number in the pickle (a loss may be one): read past, so that NumPy builds nothing from the
    file."""

    def __init__(self, *arguments: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_SKIPPED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Skipped, n) for n in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """The authors' file as it is: ``model_state_dict`` {name: float tensor}, and what else lies beside it, unchecked.

    Raises: WeightsError for a file that is missing, damaged, no checkpoint, or that asks for anything but weights;
        nothing of it runs.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"There is no checkpoint file {path}; check the name.")
    try:
        with torch.serialization.safe_globals(_SKIPPED):
            # Mapped, the optimizer's share (two thirds of the file) is never read; files of torch before 1.6 are no zip
            # archives.
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged pickle raises almost anything
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise WeightsError(
                f"{path.name} asks for {found[1]} to be loaded, which is not a weight; nothing of it was run, and "
                "it is better not used."
            ) from error
        raise WeightsError(
            f"{path.name} is not a checkpoint of PyTorch, or it is damaged or cut off; get it again."
        ) from error
    state = checkpoint.get("model_state_dict") if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not state:
        raise WeightsError(
            f"{path.name} has no model_state_dict; give the checkpoint file that the authors' training writes."
        )
    for key, value in state.items():
        plain = (
            isinstance(key, str) and isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta
        )
        # strides of 0 make a few bytes look like any size
        if not plain or value.nbytes > value.untyped_storage().nbytes():
            raise WeightsError(
                f"{path.name} holds something under {str(key)[:80]!r} that is not a plain tensor; get it again."
            )
    return checkpoint


# Which architecture ---------------------------------------------------------------------------------------------------


def _trained_parts(checkpoint: dict[str, Any]) -> set[str | None] | None:
    """The parts that training moved, or None where the optimizer's state does not tell.

    Every variant stores all encoders, so their presence says nothing. But Adam makes its moments of a parameter when it
    first meets a gradient of it, and what a variant does not compute with never gets one: it has no entry. Entries go
    by the number of the parameter in ``model.parameters()``, which is the order of the state dict with the buffers left
    out.
    """
    state = checkpoint["model_state_dict"]
    names = [k for k in state if not k.endswith(_BUFFERS)]
    try:
        optimizer = checkpoint["optimizer_state_dict"]
        numbers = [n for group in optimizer["param_groups"] for n in group["params"]]
        moved = {n: moments["exp_avg"].shape for n, moments in optimizer["state"].items()}
        keys = dict(zip(numbers, names, strict=True))
        if not moved or any(state[keys[n]].shape != shape for n, shape in moved.items()):
            return None  # another optimizer's, or numbers that mean other parameters
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return {_part(keys[n]) for n in moved}


def detect_architecture(checkpoint: dict[str, Any]) -> str:
    """The published architecture a checkpoint is of, by the parts it stores, the width of its vote and the parts that
    training moved.

    Args:
        checkpoint: as ``read_checkpoint`` returns it.

    Raises: WeightsError, with the candidates, where several or none fit.
    """
    state = checkpoint["model_state_dict"]
    stored, trained = {_part(k) for k in state}, _trained_parts(checkpoint)
    voters = tuple(state["voting.weight"].shape) if "voting.weight" in state else None
    telling = {"linear", "voting", *_ENCODERS.values()}

    def fits(a: Architecture) -> bool:
        votes = not a.learned or voters == (1, len(a.branches))
        return a.parts <= stored and votes and (trained is None or a.parts & telling == trained & telling)

    candidates = [name for name, a in ARCHITECTURES.items() if fits(a)]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise WeightsError(
            "The checkpoint fits none of the published architectures; name the one it is with --architecture."
        )
    raise WeightsError(f"The checkpoint may be {', '.join(candidates)}; name the one it is with --architecture.")


# Sizes ----------------------------------------------------------------------------------------------------------------

# Sizes of the backbones that the plain names stand for; only what differs from them goes into the config.
_STANDARD: dict[str, dict[str, Any]] = {
    "vit_base_patch16_224.orig_in21k": {
        "img_size": 224,
        "patch_size": 16,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "mlp_ratio": 4.0,
    },
    "resnet34.a1_in1k": {"layers": [3, 4, 6, 3], "channels": [64, 128, 256, 512]},
    "resnet50.a1_in1k": {"layers": [3, 4, 6, 3], "channels": [64, 128, 256, 512]},
    "swin_tiny_patch4_window7_224.ms_in1k": {
        "img_size": 224,
        "patch_size": 4,
        "window_size": 7,
        "embed_dim": 96,
        "depths": [2, 2, 6, 2],
        "num_heads": [3, 6, 12, 24],
        "mlp_ratio": 4.0,
    },
}


def _count(names: Iterable[str], prefix: str) -> int:
    """How many modules are numbered after ``prefix``."""
    return len({n.removeprefix(prefix).partition(".")[0] for n in names if n.startswith(prefix)})


def _heads(width: int) -> int:
    if width < HEAD_WIDTH or width % HEAD_WIDTH:
        raise ValueError(f"a transformer {width} wide has no whole number of heads of {HEAD_WIDTH}")
    return width // HEAD_WIDTH


def _vit_sizes(state: dict[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    """-> timm's name, side of the picture in px, sizes; so for each branch."""
    e = "vit_encoder."
    width, _, patch, _ = state[e + "embeddings.patch_embeddings.projection.weight"].shape
    side = patch * isqrt(state[e + "embeddings.position_embeddings"].shape[1] - 1)
    sizes = {
        "img_size": side,
        "patch_size": patch,
        "embed_dim": width,
        "depth": _count(state, e + "encoder.layer."),
        "num_heads": _heads(width),
        "mlp_ratio": state[e + "encoder.layer.0.intermediate.dense.weight"].shape[0] / width,
    }
    return "vit_base_patch16_224.orig_in21k", side, sizes


def _resnet_sizes(state: dict[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    """The authors write of ResNet-34 (two convolutions a layer) and compute with ResNet-50 (three); the file tells
    which it is."""
    stages = [
        f"resnet_encoder.0.encoder.stages.{s}.layers." for s in range(_count(state, "resnet_encoder.0.encoder.stages."))
    ]
    sizes = {
        "layers": [_count(state, s) for s in stages],
        "channels": [state[s + "0.layer.0.convolution.weight"].shape[0] for s in stages],
    }
    three = stages and stages[0] + "0.layer.2.convolution.weight" in state
    side = 2 ** (1 + len(stages)) * isqrt(state["resnet_projection_3.weight"].shape[1])
    return "resnet50.a1_in1k" if three else "resnet34.a1_in1k", side, sizes


def _swin_sizes(state: dict[str, Tensor]) -> tuple[str, int, dict[str, Any]]:
    e = "swintransformer_encoder.0."
    width, _, patch, _ = state[e + "embeddings.patch_embeddings.projection.weight"].shape
    stages = [f"{e}encoder.layers.{s}.blocks." for s in range(_count(state, e + "encoder.layers."))]
    # each [(2 window - 1)^2, heads]
    tables = [state[s + "0.attention.self.relative_position_bias_table"] for s in stages]
    side = patch * 2 ** (len(stages) - 1) * isqrt(state["swintransformer_projection_1.weight"].shape[1])
    sizes = {
        "img_size": side,
        "patch_size": patch,
        "window_size": (isqrt(tables[0].shape[0]) + 1) // 2,
        "embed_dim": width,
        "depths": [_count(state, s) for s in stages],
        "num_heads": [t.shape[1] for t in tables],
        "mlp_ratio": state[stages[0] + "0.intermediate.dense.weight"].shape[0] / width,
    }
    return "swin_tiny_patch4_window7_224.ms_in1k", side, sizes


def _branch(name: str, state: dict[str, Tensor]) -> ImageBranchConfig:
    """A branch as published, of the sizes found in the file."""
    backbone, side, sizes = {"vit": _vit_sizes, "resnet": _resnet_sizes, "swin": _swin_sizes}[name](state)
    unlike = {k: v for k, v in sizes.items() if v != _STANDARD[backbone][k]}
    published = next(b for b in preset("published-all").branches if b.name == name)
    return replace(published, backbone=backbone, backbone_args=unlike, image_size=side)


def _config(architecture: str, state: dict[str, Tensor]) -> MustiConfig:
    """Raises KeyError for a tensor that is needed to tell a size, ValueError for sizes that cannot be."""
    how = ARCHITECTURES[architecture]
    vocabulary, hidden = state["text_embedding.word_embeddings.weight"].shape
    return MustiConfig(
        branches=tuple(_branch(b, state) for b in how.branches),
        text={
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "num_hidden_layers": _count(state, "text_encoder.layer."),
            "num_attention_heads": _heads(hidden),
            "intermediate_size": state["text_encoder.layer.0.intermediate.dense.weight"].shape[0],
            "max_position_embeddings": state["text_embedding.position_embeddings.weight"].shape[0],
        },
        text_length=state["final_projection.weight"].shape[1],
        gate="scalar" if how.gate else "none",
        voting="learned" if how.learned else "mean",
        padding="carry",
        logit="published",
        name=architecture,
    )


# Weights --------------------------------------------------------------------------------------------------------------


def _misfit(architecture: str, **faults: list[str]) -> WeightsError:
    """One sentence that counts the keys of each kind of fault and names the first three."""
    listed = [
        f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    return WeightsError(
        f"The checkpoint's keys are not those of {architecture}: {'; '.join(listed)}; name another --architecture "
        "or get the file again."
    )


def build_model(architecture: str, state: dict[str, Tensor]) -> MustiModel:
    """The published model with the file's weights, float32, sizes as the file has them.

    What the architecture does not compute with is left out, also where the file has it, and keeps neutral values.

    Args:
        architecture: a key of ARCHITECTURES.
        state: ``model_state_dict`` of the file.

    Raises: WeightsError for keys that are missing, unexpected or of another shape (the first few are listed), weights
        that are not finite, an architecture or sizes that cannot be.
    """
    if architecture not in ARCHITECTURES:
        raise WeightsError(
            f"There is no published architecture {architecture!r}; there are {', '.join(ARCHITECTURES)}."
        )
    used = ARCHITECTURES[architecture].parts
    try:
        model = MustiModel(_config(architecture, state))
    except KeyError as error:
        raise _misfit(architecture, missing=[error.args[0]]) from error
    except Exception as error:  # sizes that contradict each other fail anywhere in timm, transformers or torch
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:160]
        raise WeightsError(
            f"No {architecture} can be built of the checkpoint's sizes ({reason}); get the file again."
        ) from error
    target = model.state_dict()
    sources = {k: names for k in target if (names := _their_names(k)) and _part(names[0]) in used}
    wanted = [n for names in sources.values() for n in names]
    unexpected = _unexpected(state, used, set(wanted))
    missing = [n for n in wanted if n not in state]
    if missing or unexpected:
        raise _misfit(architecture, missing=missing, unexpected=unexpected)
    wrong = [n for k, names in sources.items() for n in names if not _fits(state[n], target[k], len(names))]
    if wrong:
        raise _misfit(architecture, **{"of another shape": wrong})
    weights = {
        k: torch.cat([state[n] for n in names]) if len(names) > 1 else state[names[0]] for k, names in sources.items()
    }
    broken = [sources[k][0] for k, w in weights.items() if not w.isfinite().all()]
    if broken:
        raise WeightsError(
            f"The checkpoint has weights that are not finite, {broken[0]} among them; give one of an earlier epoch."
        )
    model.load_state_dict(weights, strict=False)  # the rest is what the architecture does not use
    return model.eval()


def _unexpected(state: dict[str, Tensor], used: set[str], wanted: set[str]) -> list[str]:
    """Keys of no part, or of a used part but with no place in it. Expected leftovers: parts of other variants, the
    ViT's pooler, and buffers that follow from the sizes."""
    others = set(PARTS) - used
    rest = [k for k in state if k not in wanted and not k.startswith("vit_encoder.pooler.")]
    return [k for k in rest if _part(k) not in others and not (_part(k) and k.endswith(_COMPUTED))]


def _fits(value: Tensor, target: Tensor, shares: int) -> bool:
    """Whether a tensor of the file is one of ``shares`` equal shares, along the first axis, of our tensor."""
    shape = list(target.shape)
    if shares > 1:
        shape[0] //= shares
    return list(value.shape) == shape


# Writing --------------------------------------------------------------------------------------------------------------


def _tokenizer(source: str | Path, vocabulary: int) -> PreTrainedTokenizerBase:
    """Raises WeightsError for one that cannot be had, or that numbers other wordpieces than the model embeds."""
    try:
        # With no network only the cache is asked, which fails at once, not after a minute of retries.
        local = Path(source).is_dir() or not reachable(str(source), None)
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=local)
    except Exception as error:  # the Hub's client, transformers and the files' readers have no common base
        raise WeightsError(
            f"The tokenizer {source} cannot be had; check the network, or give a folder that holds it with --tokenizer."
        ) from error
    if type(tokenizer).__name__ not in CLASSES:
        raise WeightsError(
            f"The tokenizer {source} is a {type(tokenizer).__name__}, not one of BERT's kind; give the one it was "
            "trained with."
        )
    if len(tokenizer) != vocabulary:
        raise WeightsError(
            f"The tokenizer {source} has {len(tokenizer)} wordpieces and the checkpoint {vocabulary}; give the one "
            "it was trained with."
        )
    return tokenizer


def convert(
    checkpoint: str | Path,
    out: str | Path,
    architecture: str | None = None,
    tokenizer: str | Path = TOKENIZER,
    force: bool = False,
) -> MustiConfig:
    """Writes the authors' checkpoint as a folder that ``MustiPipeline.from_pretrained`` loads.

    Args:
        checkpoint: their ``.pt`` file.
        out: the folder to write; it must be new or empty, unless ``force``.
        architecture: a key of ARCHITECTURES; None finds it from the file.
        tokenizer: a folder or Hub id.

    Returns: the config, whose name is the architecture's.

    Raises: WeightsError with one sentence; then nothing was written, unless the disk failed.
    """
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise WeightsError(f"{out} is a file; give the name of a folder.")
    if not force and out.is_dir() and any(out.iterdir()):
        raise WeightsError(f"The folder {out} is not empty; give another one, or --force to write into it.")
    read = read_checkpoint(checkpoint)
    model = build_model(architecture or detect_architecture(read), read["model_state_dict"])
    processor = MustiProcessor(model.config, _tokenizer(tokenizer, model.config.text["vocab_size"]))
    try:
        model.save_pretrained(out)
        processor.save_pretrained(out)
        (out / "metrics.json").unlink(missing_ok=True)  # scores of the weights that lay there before
    except (OSError, SafetensorError) as error:
        raise WeightsError(
            f"The weights could not be written to {out} ({error}); check the disk and the folder's rights."
        ) from error
    return model.config


def main(arguments: list[str] | None = None) -> int:
    """Converts one file; returns the exit status (2: one sentence on standard error)."""
    parser = argparse.ArgumentParser(
        prog="python -m musti_model.mmm2024",
        description="Turns the authors' checkpoint into a folder of weights for this project.",
    )
    parser.add_argument("checkpoint", help="their .pt file; it is read as weights only")
    parser.add_argument("out", help="folder to write")
    parser.add_argument(
        "--architecture", metavar="NAME", help=f"found from the file if not given; one of {', '.join(ARCHITECTURES)}"
    )
    parser.add_argument("--tokenizer", default=TOKENIZER, help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--force", action="store_true", help="write into a folder that is not empty")
    options = parser.parse_args(arguments)
    try:
        config = convert(options.checkpoint, options.out, options.architecture, options.tokenizer, options.force)
    except WeightsError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{options.out}: {config.name}, branches {', '.join(b.name for b in config.branches)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
