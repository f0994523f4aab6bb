"""Stages "words" and "match": the text learns what names mean, then the whole model learns to match, on frozen backbones' features."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..losses import FocalLoss
from ..metrics import best_threshold, collapsed, scores
from .augment import mosaics, plain_view, quarters, random_view
from .pairs import Pair
from .passages import Passage, PassageMill
from .pictures import Pictures
from .pretrain_images import sampling_weights

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """input_ids, attention_mask [B, T]; piece_labels [B, T] object or ``len(objects)`` (none) or IGNORE; named [B, objects] 0/1;
    pictures [B] rows; objects [B] what they show; pairs [P, 3] (passage, picture, label), indices into the batch."""

    input_ids: Tensor
    attention_mask: Tensor
    piece_labels: Tensor
    named: Tensor
    pictures: Tensor
    objects: Tensor
    pairs: Tensor
    view: int

    def to(self, device: torch.device) -> "Batch":
        """The same on a device."""
        moved = {f.name: v.to(device) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)}
        return replace(self, **moved)


@torch.inference_mode()
def backbone_features(model: MustiModel, pictures: Pictures, views: int, seed: int) -> list[dict[str, Tensor]]:
    """Features of every picture by view and branch, bfloat16. views = 0: one plain view; else that many random ones."""
    device = next(model.parameters()).device
    model.eval()
    result = []
    for view in range(max(1, views)):
        generator = torch.Generator().manual_seed(seed + view)
        store: dict[str, list[Tensor]] = {n: [] for n in model.branches}
        for start in tqdm(range(0, len(pictures), 256), desc=f"features, view {view + 1}", mininterval=5):
            pixels = torch.from_numpy(np.array(pictures.pixels[start : start + 256]))
            size = next(iter(model.branches.values())).config.image_size
            x = random_view(pixels, size, generator, 0.4) if views else plain_view(pixels, size)
            with torch.autocast(device.type, torch.bfloat16):
                for name, branch in model.branches.items():
                    store[name].append(branch.features((x.to(device) - 0.5) / 0.5).bfloat16().cpu())
        result.append({n: torch.cat(parts) for n, parts in store.items()})
    return result


@torch.inference_mode()
def mosaic_features(model: MustiModel, pictures: Pictures, count: int, seed: int) -> dict[str, Tensor]:
    """Features of ``count`` pictures of four pictures each by branch, bfloat16; and "labels" [count, 4] of their quarters."""
    device = next(model.parameters()).device
    model.eval()
    generator, rng = torch.Generator().manual_seed(seed), np.random.default_rng(seed)
    chosen = rng.choice(len(pictures), size=count, p=sampling_weights(pictures))
    size = next(iter(model.branches.values())).config.image_size
    store: dict[str, list[Tensor]] = {n: [] for n in (*model.branches, "labels")}
    for start in tqdm(range(0, count, 256), desc="features, mosaics", mininterval=5):
        rows = np.sort(chosen[start : start + 256])
        views = random_view(torch.from_numpy(np.array(pictures.pixels[rows])), size, generator, 0.4)
        x, labels = mosaics(views, torch.from_numpy(pictures.labels[rows]), generator)
        store["labels"].append(labels)
        with torch.autocast(device.type, torch.bfloat16):
            for name, branch in model.branches.items():
                store[name].append(branch.features((x.to(device) - 0.5) / 0.5).bfloat16().cpu())
    return {n: torch.cat(parts) for n, parts in store.items()}


def tokens_of(model: MustiModel, features: dict[str, Tensor], rows: Tensor) -> dict[str, ImageTokens]:
    """Kept features -> image tokens, as ``encode_images`` would make them."""
    device = next(model.parameters()).device
    rows = rows.cpu()
    return {
        n: branch.to_tokens(features[n][rows].to(device).float(), model.hidden_norm, model.grid_norm)
        for n, branch in model.branches.items()
    }


def piece_labels(passages: list[Passage], offsets: Tensor, objects: tuple[str, ...]) -> Tensor:
    """[B, T] object index of every wordpiece inside a name, ``len(objects)`` elsewhere, IGNORE on doubtful names and special tokens."""
    labels = torch.full(offsets.shape[:2], len(objects))
    labels[(offsets[..., 1] == offsets[..., 0])] = IGNORE
    labels[:, 0] = IGNORE
    for row, passage in enumerate(passages):
        for m in passage.mentions:
            inside = (offsets[row, :, 0] < m.end) & (offsets[row, :, 1] > m.start)
            labels[row, inside] = objects.index(m.object) if m.sure else IGNORE
    return labels


def batches(
    mill: PassageMill, tokenizer: PreTrainedTokenizerFast, pictures: Pictures, size: int, steps: int, seed: int, views: int,
    drill: bool = False, padding: str = "longest", no_per_yes: int = 2,
) -> Iterator[Batch]:
    """Training batches: each passage stands in one YES and ``no_per_yes`` NO pairs, and so does each picture.

    drill: a few words a passage, dense with names, instead of passages as people wrote them. padding: as ``MustiConfig.tokenizer_padding``.
    """
    rng = np.random.default_rng(seed)
    objects = pictures.objects
    by_object = [np.flatnonzero(pictures.labels == k) for k in range(len(objects))]
    for _ in range(steps):
        high = int(rng.choice([8, 16] if drill else [15, 30, 45, 60, 90, 120]))  # like lengths together: little padding
        draw = mill.drill if drill else mill.draw
        drawn = [draw(rng, max(4, high * 2 // 3), high) for _ in range(size)]
        passages = [p for p, _ in drawn]
        shown = np.array([objects.index(o) for _, o in drawn])
        enc = tokenizer(
            [p.text for p in passages], truncation=True, padding=padding, return_offsets_mapping=True, return_tensors="pt"
        )
        named = torch.zeros(size, len(objects))
        touched = np.zeros((size, len(objects)), dtype=bool)
        for i, p in enumerate(passages):
            named[i, [objects.index(o) for o in p.named]] = 1
            touched[i, [objects.index(o) for o in p.touched]] = True
        pairs = [(i, i, 1) for i in range(size)]
        for _ in range(no_per_yes):
            order = rng.permutation(size)
            pairs += [(i, int(j), 0) for i, j in enumerate(order) if not touched[i, shown[j]]]
        yield Batch(
            enc["input_ids"], enc["attention_mask"], piece_labels(passages, enc["offset_mapping"], objects), named,
            torch.from_numpy(np.array([rng.choice(by_object[k]) for k in shown])), torch.from_numpy(shown),
            torch.tensor(pairs), int(rng.integers(views)),
        )  # fmt: skip


class Objective:
    """The loss of both stages: naming (wordpieces, [CLS], picture vectors, all toward the same object prototypes), and, in stage "match",
    focal loss on pairs. Naming stays on during matching so that the text goes on to be read word by word.

    none: weight of the wordpieces that name nothing, which are nearly all; naming: of the naming losses beside the focal loss, 0 leaves them
    out; branches: weight of the focal loss on each branch's own logit; mosaics: of ``mosaic_features``: in these each object is to be found in
    its own quarter, so that the places of a picture of several things tell which is where.
    """

    def __init__(
        self, features: list[dict[str, Tensor]], focal: FocalLoss | None, naming: float = 1.0, none: float = 0.1, branches: float = 0.5,
        mosaics: dict[str, Tensor] | None = None,
    ) -> None:  # fmt: skip
        self.features, self.focal, self.naming, self.none, self.branches = features, focal, naming, none, branches
        self.mosaics = mosaics

    def __call__(self, model: MustiModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """-> loss [], parts."""
        batch = batch.to(next(model.parameters()).device)
        encoded = self.encoded(model, batch)
        loss, parts = self._names(model, batch, encoded) if self.naming else (0.0, {})
        if self.focal is not None:
            rows, columns, labels = batch.pairs.T
            chosen = {n: t.select(columns) for n, t in encoded.items()}
            output = model.match(chosen, batch.input_ids[rows], batch.attention_mask[rows])
            focal = self.focal(output.logits, labels.float())
            # Each branch is also held to the answer by itself, or the better one would let the other starve.
            alone = model.scale * output.similarities + model.bias
            each = sum(self.focal(z, labels.float()) for z in alone.T) / alone.shape[1]
            loss = loss + 10 * (focal + self.branches * each)
            parts["focal"] = focal.item()
        return loss, parts

    def encoded(self, model: MustiModel, batch: Batch) -> dict[str, ImageTokens]:
        """Image tokens of the batch's pictures."""
        return tokens_of(model, self.features[batch.view], batch.pictures)

    def _names(self, model: MustiModel, batch: Batch, encoded: dict[str, ImageTokens]) -> tuple[Tensor, dict[str, float]]:
        known = len(model.config.objects)
        states = model.plain_states(batch.input_ids, batch.attention_mask)
        logits = model.name_states(states)
        weight = torch.ones(known + 1, device=logits.device)
        weight[known] = self.none
        pieces = F.cross_entropy(logits.flatten(0, 1), batch.piece_labels.flatten(), weight, ignore_index=IGNORE)
        target = batch.named / batch.named.sum(1, keepdim=True)
        whole = F.cross_entropy(model.name_vector(model.pooler(states)), target)
        picture = sum(
            F.cross_entropy(model.name_vector(model.image_vector(t)), batch.objects) for t in encoded.values()
        ) / len(encoded)
        loss = pieces + whole + picture
        parts = {"pieces": pieces.item(), "cls": whole.item(), "picture": picture.item()}
        if self.mosaics is not None:
            places = self._places(model, batch.pictures % len(self.mosaics["labels"]))  # as good as drawn: the batch's pictures are
            loss, parts["places"] = loss + places, places.item()
        return self.naming * loss, parts

    def _places(self, model: MustiModel, rows: Tensor) -> Tensor:
        """How little the four objects of each mosaic are found in their own quarters: for each object, the places compete for it (softmax of
        its logit over the places), and its quarter should win. Mean of the branches."""
        losses = []
        for tokens in tokens_of(model, {n: self.mosaics[n] for n in model.branches}, rows).values():
            labels = self.mosaics["labels"][rows.cpu()]
            logits = model.name_vector(tokens.tokens[:, 1:])  # [M, places, objects]
            own = logits.gather(2, labels.to(logits.device)[:, None].expand(-1, logits.shape[1], -1)).log_softmax(1)  # [M, places, 4]
            inside = torch.stack([quarters(labels * 0 + torch.arange(4), tokens.grid) == q for q in range(4)], dim=2).to(logits.device)
            losses.append(-own.masked_fill(~inside, float("-inf")).logsumexp(1).mean())
        return torch.stack(losses).mean()


class PixelObjective(Objective):
    """The same, but the pictures go through the backbones, which learn too."""

    def __init__(self, pictures: Pictures, focal: FocalLoss, **weights: float) -> None:
        super().__init__([], focal, **weights)
        self.pictures = pictures

    def encoded(self, model: MustiModel, batch: Batch) -> dict[str, ImageTokens]:
        """Image tokens of a random view of each picture."""
        rows = batch.pictures.cpu().numpy()
        generator = torch.Generator().manual_seed(int(rows.sum()))  # of the batch alone, so that a resumed run sees the same views
        size = next(iter(model.branches.values())).config.image_size
        x = random_view(torch.from_numpy(np.array(self.pictures.pixels[rows])), size, generator, 0.4)
        x = (x.to(next(model.parameters()).device) - 0.5) / 0.5
        return model.encode_images(dict.fromkeys(model.branches, x))


@torch.inference_mode()
def pair_logits(
    model: MustiModel, tokenizer: PreTrainedTokenizerFast, features: dict[str, Tensor], passages: list[Passage],
    pairs: list[Pair], batch: int = 96,
) -> tuple[np.ndarray, np.ndarray]:
    """Logits [N] and similarities [N, branches] of pairs, shortest passages first, each batch cut to its longest."""
    device = next(model.parameters()).device
    model.eval()
    order = sorted(range(len(pairs)), key=lambda i: len(passages[pairs[i].passage].text))
    logits = np.zeros(len(pairs))
    similarities = np.zeros((len(pairs), len(model.branches)))
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        texts = [passages[pairs[i].passage].text for i in rows]
        enc = tokenizer(texts, truncation=True, padding=model.config.tokenizer_padding, return_tensors="pt").to(device)
        with torch.autocast(device.type, torch.bfloat16):
            encoded = tokens_of(model, features, torch.tensor([pairs[i].picture for i in rows]))
            output = model.match(encoded, enc["input_ids"], enc["attention_mask"])
        logits[rows], similarities[rows] = output.logits.float().cpu().numpy(), output.similarities.cpu().numpy()
    return logits, similarities


def evaluate_pairs(model, tokenizer, features, passages, pairs, threshold: float | None = None) -> dict:
    """Scores on pairs; without ``threshold`` the best one is chosen and returned."""
    logits, _ = pair_logits(model, tokenizer, features, passages, pairs)
    probabilities = 1 / (1 + np.exp(-logits / model.config.temperature))
    labels = np.array([p.label for p in pairs])
    threshold = best_threshold(labels, probabilities) if threshold is None else threshold
    result = scores(labels, probabilities, threshold, [passages[p.passage].language for p in pairs])
    return result | {"threshold": threshold, "score": result["f1_macro"], "collapsed": collapsed(probabilities)}
