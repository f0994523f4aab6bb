"""The starter before any training: pretrained towers put together, and prototypes of the objects made of the text
tower's own words for them."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from musti_model.attention import Backbone
from musti_model.config import E5_SMALL, preset
from musti_model.device import autocast
from musti_model.fusion import LinearGate, WordGate
from musti_model.image_tower import ImageTower
from musti_model.model import MustiModel
from musti_model.weights import find_weights

from ..lexicon.naming import LANGUAGES, Lexicon
from .augment import branch_input, plain_view
from .drawing import Shown
from .pictures import Pictures

TEXT, CNN, VIT = "multilingual-e5-small", "tf_efficientnet_lite0.safetensors", "vit_small_patch14_dinov2.safetensors"


def load_tokenizer(folder: Path, length: int) -> PreTrainedTokenizerFast:
    """The text tower's own tokenizer. folder: of the tower."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        model_max_length=length,
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"],
    )


def text_of(layers: int | None) -> dict[str, object]:
    """The change of the preset by which the text encoder has only its first so many layers; none for None."""
    return {} if layers is None else {"text": E5_SMALL | {"num_hidden_layers": layers}}


def starter_model(
    data: Path, objects: tuple[str, ...], **changes: object
) -> tuple[MustiModel, PreTrainedTokenizerFast]:
    """The preset "starter" with the weights of ``data/pretrained``; ``name_objects`` comes next.

    Args:
        objects: what the naming head shall know. changes: of the preset.

    Raises: FileNotFoundError for a tower that is not there; RuntimeError for one of another shape.
    """
    folder = data / "pretrained"
    model = MustiModel(preset("starter", objects=objects, **changes)).eval()
    _load_vit(model.tower("vit").backbone, load_file(folder / VIT))
    cnn = {k: v for k, v in load_file(folder / CNN).items() if not k.startswith("classifier.")}
    model.tower("cnn").backbone.load_state_dict(cnn)
    text = load_file(folder / TEXT / "model.safetensors")
    for name in ("embeddings", "encoder"):
        part = getattr(model.text, name)
        own = part.state_dict()
        part.load_state_dict({k: text[f"{name}.{k}"].float() for k in own if f"{name}.{k}" in text}, strict=True)
    tokenizer = load_tokenizer(folder / TEXT, model.config.text_length)
    _norm_as_it_is(model, tokenizer)
    return model, tokenizer


def _load_vit(vit: Backbone, state: dict[str, Tensor]) -> None:
    """The first blocks of a deeper ViT, its positions resampled to the grid of this one."""
    grid = vit.patch_embed.grid_size
    state["pos_embed"] = resample_abs_pos_embed(
        state["pos_embed"].float(), grid, num_prefix_tokens=vit.num_prefix_tokens
    )
    own = vit.state_dict()
    vit.load_state_dict({k: state[k].float() for k in own}, strict=True)


@torch.inference_mode()
def _norm_as_it_is(model: MustiModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The gate's LayerNorm comes after that of the embeddings: it starts as near to doing nothing as a LayerNorm
    can."""
    words = [f for tag in LANGUAGES for f in Lexicon(tag, model.config.objects).forms()[:200]]
    ids = tokenizer(words, padding=True, return_tensors="pt")
    states = model.text.embed(ids["input_ids"])[ids["attention_mask"].bool()]
    model.fusion.norm.weight.data.fill_(states.std(-1, correction=0).mean())
    model.fusion.norm.bias.data.fill_(states.mean())
    if isinstance(model.fusion, WordGate | LinearGate):  # what is let in is as large as the word that it is added to
        model.fusion.pass_on.weight.mul_(states.std(-1, correction=0).mean())


def borrow_backbones(model: MustiModel, folder: Path) -> None:
    """The image backbones of trained weights, for a text tower that knows nothing of them.

    Args:
        folder: of the weights. Raises: WeightsError for one that holds none; RuntimeError for backbones of another
            shape.
    """
    trained, _ = find_weights(folder).load()
    for name, branch in model.towers.items():
        branch.backbone.load_state_dict(trained.tower(name).backbone.state_dict())


@torch.no_grad()
def toward_pretrained(model: MustiModel, data: Path, share: float) -> None:
    """Moves the image backbones that share of the way back to the pretrained ones: pictures unlike those of the
    training are known better, and those like them no worse (Wortsman et al. 2022, "Robust fine-tuning of zero-shot
    models").

    Args:
        data: the raw material, which holds the pretrained towers. share: 0 (as trained) .. 1 (as pretrained).
    """
    pretrained, _ = starter_model(data, model.config.objects)
    for branch, other in zip(model.towers.values(), pretrained.towers.values(), strict=True):
        for own, start in zip(branch.backbone.parameters(), other.backbone.parameters(), strict=True):
            own.lerp_(start.to(own.device), share)


@torch.inference_mode()
def name_states(
    model: MustiModel, tokenizer: PreTrainedTokenizerFast, names: list[str], batch: int = 256
) -> tuple[Tensor, Tensor]:
    """Each name read alone: the mean of its wordpieces' states before the common space, and the first position's state.
    -> [names, H] each."""
    device = next(model.parameters()).device
    result, first = [], []
    for start in range(0, len(names), batch):
        ids = tokenizer(names[start : start + batch], padding=True, return_tensors="pt").to(device)
        mask = ids["attention_mask"].clone()
        last = mask.sum(1) - 1
        mask[:, 0] = 0
        mask[torch.arange(len(mask)), last] = 0
        text = model.text.embed(ids["input_ids"])
        states = model.text.encode(model.fusion.fuse(text, None), ids["attention_mask"])
        result.append((states * mask[..., None]).sum(1) / mask.sum(1, keepdim=True).clamp(min=1))
        first.append(states[:, 0])
    return torch.cat(result).float().cpu(), torch.cat(first).float().cpu()


def name_objects(model: MustiModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Prototypes: mean state of an object's names, each language counting alike, less what all names have in common;
    words are named from the first step."""
    rows = [(o, tag, form) for tag in LANGUAGES for o, form in _plain_names(tag, model.config.objects)]
    states, first = name_states(model, tokenizer, [form for *_, form in rows])
    centred = F.normalize(states - states.mean(0), dim=-1)
    means = []
    for name in model.config.objects:
        by_language = [centred[[i for i, (o, t, _) in enumerate(rows) if (o, t) == (name, tag)]] for tag in LANGUAGES]
        means.append(torch.stack([part.mean(0) for part in by_language if len(part)]).mean(0))
    with torch.no_grad():
        model.known_prototypes().copy_(F.normalize(torch.stack(means), dim=-1))
        if model.fusion.space is not None:
            model.fusion.space.word.bias.copy_(-states.mean(0))
        # The pooled text starts in the same space: tanh of half a unit is nearly linear.
        size = 0.5 / first.std(0).mean()
        model.text.pooler.dense.weight.copy_(size * torch.eye(model.text.hidden))
        model.text.pooler.dense.bias.copy_(-size * first.mean(0))


@torch.inference_mode()
def place_objects(
    model: MustiModel, pictures: Pictures, most: int = 240, strength: float = 0.3, batch: int = 64
) -> None:
    """Places start where a ridge regression leads them: of a branch's features (mean over the places) on the prototype
    of what the picture shows.

    Args:
        most: pictures an object. strength: of the penalty, in variances of the features.
    """
    rng, device = np.random.default_rng(0), next(model.parameters()).device
    rows = np.concatenate(
        [rng.permutation(np.flatnonzero(pictures.labels == k))[:most] for k in range(len(pictures.objects))]
    )
    kept: dict[str, list[Tensor]] = {n: [] for n in model.branches}
    for start in range(0, len(rows), batch):
        part = torch.from_numpy(np.array(pictures.pixels[rows[start : start + batch]])).to(device)
        for name, branch in model.towers.items():
            images = branch_input(plain_view(part, branch.config.image_size), branch.config)
            with autocast(device):
                kept[name].append(_mean_place(branch, branch.features(images)))
    means = {name: torch.cat(parts) for name, parts in kept.items()}
    _lead_places(model, means, torch.from_numpy(pictures.labels[rows]), strength)


@torch.inference_mode()
def place_kept(model: MustiModel, shown: Shown, strength: float = 0.3) -> None:
    """The same from pictures of one thing each, whose features are kept."""
    means = {n: _mean_place(branch, shown.features[n].float()) for n, branch in model.towers.items()}
    _lead_places(model, means, shown.presence.float().argmax(1), strength)


def _mean_place(branch: ImageTower, features: Tensor) -> Tensor:
    """[R, C] mean over the places of what the backbone made of pictures."""
    places = features[:, branch.backbone.num_prefix_tokens :].mean(1) if branch.is_vit else features.mean((2, 3))
    return places.float()


def _lead_places(model: MustiModel, means: dict[str, Tensor], labels: Tensor, strength: float) -> None:
    prototypes = F.normalize(model.known_prototypes().float(), dim=-1)
    targets = prototypes[labels.to(prototypes.device)]
    for name, branch in model.towers.items():
        weight, bias = _ridge(means[name], targets, strength)
        linear: Backbone = branch.projection
        linear[0].weight.copy_(weight)
        linear[0].bias.copy_(bias)


def _ridge(x: Tensor, y: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """weight [H, C] and bias [H] of the linear map from x [N, C] to y [N, H] that a ridge regression on standardised
    features finds."""
    centre, spread = x.mean(0), x.std(0) + 1e-6
    z = ((x - centre) / spread).double()
    inverse = z.T @ z + strength * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    weight = torch.linalg.solve(inverse, z.T @ (y - y.mean(0)).double()).T.float() / spread
    return weight, y.mean(0) - weight @ centre


def _plain_names(language: str, objects: tuple[str, ...]) -> list[tuple[str, str]]:
    lexicon = Lexicon(language, objects)
    return [
        (o, form)
        for o, names in lexicon.names.items()
        for n in names
        if not n.ambiguous
        for form in list(n.forms.values())[:2]
    ]
