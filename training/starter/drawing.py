"""Training batches: passages drawn by worker processes, pictures drawn and varied on the device."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from .augment import collages, nothing, random_view
from .passages import Passage, PassageMill
from .pictures import Pictures

IGNORE = -100
# Wordpieces to which a batch's length is rounded up: on a GPU, whose libraries prepare a kernel for each new shape, for
# longer than it then runs; on a CPU.
ROUND, ROUND_CPU = 32, 8
LENGTHS = (15, 30, 45, 60, 90, 120, 160, 250)  # most words of a batch's passages; like lengths together: little padding
LENGTH_SHARES = (0.14, 0.2, 0.18, 0.16, 0.14, 0.1, 0.06, 0.02)


@dataclass(frozen=True)
class Texts:
    """input_ids, attention_mask [B, T]; pieces [B, T]: the object that each wordpiece names, ``objects`` where it names
    none, IGNORE on doubtful names and special tokens; named, touched: bool [B, objects], surely, and surely or
    possibly, named; shown [B]: an object that is named; seed: of the batch's pictures and pairs."""

    input_ids: Tensor
    attention_mask: Tensor
    pieces: Tensor
    named: Tensor
    touched: Tensor
    shown: Tensor
    seed: int

    def to(self, device: torch.device) -> "Texts":
        """The same on a device."""
        moved: dict[str, Any] = {
            f.name: v.to(device, non_blocking=True)
            for f in fields(self)
            if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


def piece_labels(passages: list[Passage], offsets: Tensor, objects: tuple[str, ...]) -> Tensor:
    """[B, T] object index of every wordpiece inside a name, ``len(objects)`` elsewhere, IGNORE on doubtful names and
    special tokens."""
    labels = torch.full(offsets.shape[:2], len(objects))
    labels[offsets[..., 1] == offsets[..., 0]] = IGNORE
    for row, passage in enumerate(passages):
        for m in passage.mentions:
            inside = (offsets[row, :, 0] < m.end) & (offsets[row, :, 1] > m.start)
            labels[row, inside] = objects.index(m.object) if m.sure else IGNORE
    return labels


class TextBatches(Dataset[Texts]):
    """Batch number ``step`` of an epoch, the same each time: a resumed run sees what an unbroken one would.

    drills: share of the batches that are a few words each, dense with names, instead of passages as people wrote them.
    tokens: about as many wordpieces a batch, so that long passages come in small batches; most: passages a batch.
    """

    def __init__(
        self,
        mill: PassageMill,
        tokenizer: PreTrainedTokenizerBase,
        objects: tuple[str, ...],
        steps: int,
        seed: tuple[int, int],
        drills: float = 0.0,
        tokens: int = 4000,
        most: int = 160,
        padding: str = "longest",
    ) -> None:
        self.mill, self.tokenizer, self.objects, self.steps, self.seed = mill, tokenizer, objects, steps, seed
        self.drills, self.tokens, self.most, self.padding = drills, tokens, most, padding
        self.round = ROUND if torch.cuda.is_available() else ROUND_CPU

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Texts:
        rng = np.random.default_rng((*self.seed, step))
        drill = rng.random() < self.drills
        high = int(rng.choice([6, 12]) if drill else rng.choice(LENGTHS, p=LENGTH_SHARES))
        count = max(4, min(self.most, int(self.tokens / (1.5 * high))))
        draw = self.mill.drill if drill else self.mill.draw
        drawn = [draw(rng, max(3, high * 2 // 3), high) for _ in range(count)]
        passages = [p for p, _ in drawn]
        enc = self.tokenizer(
            [p.text for p in passages],
            truncation=True,
            padding=self.padding,
            pad_to_multiple_of=self.round,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        index = {o: k for k, o in enumerate(self.objects)}
        named, touched = (torch.zeros(count, len(index), dtype=torch.bool) for _ in range(2))
        for i, p in enumerate(passages):
            named[i, [index[o] for o in p.named]] = True
            touched[i, [index[o] for o in p.touched]] = True
        shown = torch.tensor([index[o] for _, o in drawn])
        return Texts(
            enc["input_ids"],
            enc["attention_mask"],
            piece_labels(passages, enc["offset_mapping"], self.objects),
            named,
            touched,
            shown,
            seed=int(rng.integers(2**40)),
        )


def text_batches(data: TextBatches, first: int, workers: int | None = None) -> Iterator[Texts]:
    """The batches from number ``first`` on, in order, made ahead by worker processes (none: here)."""
    workers = max(0, min(14, (os.cpu_count() or 1) - 2)) if workers is None else workers
    more: dict[str, Any] = {"prefetch_factor": 4} if workers else {}
    # One thread a worker, or the tokenizer's and torch's own threads would fight for the cores.
    loader = DataLoader(
        data, batch_size=None, sampler=range(first, len(data)), num_workers=workers, worker_init_fn=_alone, **more
    )
    return iter(loader)


def _alone(_worker: int) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    torch.set_num_threads(1)


@dataclass(frozen=True)
class Shown:
    """A batch's pictures: first the one of each passage, then collages, then pictures of nothing. pixels: float32 [R,
    3, S, S] in 0..1, None where features are kept; presence: bool [R, objects], what each shows; objects, boxes: of the
    collages, how many there are and where their items lie (see ``Collages``); features: {branch: what its frozen
    backbone made of the pictures}, empty while there are pixels."""

    pixels: Tensor | None
    presence: Tensor
    singles: int
    objects: Tensor
    boxes: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    def encoded(self, encode: Callable[[Tensor], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The features that are kept, else what a backbone makes of the pixels."""
        if self.pixels is None:
            return {name: kept.float() for name, kept in self.features.items()}
        return encode(self.pixels)


class Album:
    """All training pictures on the device, drawn and varied there.

    A batch always has as many pictures: ``count`` of things, and in these proportions collages and pictures of nothing
    (one shape, see ROUND).
    """

    def __init__(
        self,
        pictures: Pictures,
        size: int,
        device: torch.device,
        pages: Tensor,
        strength: float = 0.6,
        collage_share: float = 0.5,
        nothing_share: float = 0.12,
        count: int = 128,
    ) -> None:
        self.pixels = torch.from_numpy(np.array(pictures.pixels)).to(device)
        self.size, self.device, self.pages, self.objects = size, device, pages.to(device), len(pictures.objects)
        self.strength, self.collage_share, self.nothing_share, self.count = (
            strength,
            collage_share,
            nothing_share,
            count,
        )
        # Paintings count twice: they are few, and what the page is asked about.
        weight = torch.from_numpy(np.where(pictures.sources == "pacs-art", 2.0, 1.0)).float()
        labels = torch.from_numpy(pictures.labels)
        self.rows = [torch.nonzero(labels == k).flatten() for k in range(self.objects)]
        self.weights = [weight[r] for r in self.rows]

    def draw(self, shown: Tensor, seed: int) -> Shown:
        """A picture of each object in ``shown`` [B], the first ``count`` of them or, where there are fewer, others to
        make up the number; and collages of these, and pictures of nothing."""
        chooser = torch.Generator().manual_seed(seed)
        others = torch.randint(self.objects, (max(0, self.count - len(shown)),), generator=chooser)
        shown = torch.cat([shown[: self.count].cpu(), others])
        rows = torch.stack(
            [self.rows[k][torch.multinomial(self.weights[k], 1, generator=chooser)[0]] for k in shown.tolist()]
        )
        generator = torch.Generator(self.device).manual_seed(seed)
        views = random_view(self.pixels[rows.to(self.device)], self.size, generator, self.strength)
        labels = shown.to(self.device)
        count = max(2, int(len(views) * self.collage_share))
        mixed = collages(views[:count], labels[:count], generator)
        empty = nothing(max(1, int(len(views) * self.nothing_share)), self.size, generator, self.pages)
        presence = torch.zeros(len(views) + count + len(empty), self.objects + 1, dtype=torch.bool, device=self.device)
        presence[torch.arange(len(views)), labels] = True
        items = torch.where(mixed.objects < 0, self.objects, mixed.objects)  # the last column takes what is not there
        presence[len(views) : len(views) + count].scatter_(1, items, True)
        return Shown(torch.cat([views, mixed.pixels, empty]), presence[:, :-1], len(views), mixed.objects, mixed.boxes)


class KeptAlbum:
    """Pictures of an album, encoded once by backbones that no longer learn: a step then costs what the text costs.

    Args:
        encode: pixels [R, 3, S, S] -> {branch: features}, first axis R.
        each: single pictures of every object; collages and pictures of nothing in the album's proportions.
    """

    def __init__(
        self, album: Album, encode: Callable[[Tensor], dict[str, Tensor]], each: int = 80, seed: int = 0
    ) -> None:
        self.album, parts = album, []
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(album.objects).repeat(each)
        labels = labels[torch.randperm(len(labels), generator=generator)]
        for number, some in enumerate(tqdm(labels.split(album.count), desc="pictures kept", mininterval=10)):
            shown = album.draw(some, (seed + 1) * 1_000_003 + number)
            parts.append(
                replace(shown, pixels=None, features={n: f.bfloat16() for n, f in shown.encoded(encode).items()})
            )
        self.singles, self.collages, self.nothing = (_joined(parts, kind) for kind in range(3))
        shows = self.singles.presence.float().argmax(1)
        self.rows = [torch.nonzero(shows == k).flatten() for k in range(album.objects)]

    def draw(self, shown: Tensor, seed: int) -> Shown:
        """As ``Album.draw``, of the pictures that are kept."""
        album, chooser = self.album, torch.Generator().manual_seed(seed)
        others = torch.randint(album.objects, (max(0, album.count - len(shown)),), generator=chooser)
        wanted = torch.cat([shown[: album.count].cpu(), others]).tolist()
        device = self.singles.presence.device
        own = torch.stack([self.rows[k][torch.randint(len(self.rows[k]), (), generator=chooser)] for k in wanted]).to(
            device
        )
        mixed = torch.randperm(len(self.collages.presence), generator=chooser)[
            : max(2, int(album.count * album.collage_share))
        ].to(device)
        empty = torch.randperm(len(self.nothing.presence), generator=chooser)[
            : max(1, int(album.count * album.nothing_share))
        ].to(device)
        chosen = ((self.singles, own), (self.collages, mixed), (self.nothing, empty))
        return Shown(
            None,
            torch.cat([part.presence[rows] for part, rows in chosen]),
            len(own),
            self.collages.objects[mixed],
            self.collages.boxes[mixed],
            {n: torch.cat([part.features[n][rows] for part, rows in chosen]) for n in self.singles.features},
        )


def _joined(parts: list[Shown], kind: int) -> Shown:
    """All single pictures (0), collages (1) or pictures of nothing (2) of several draws."""
    bounds = [(0, p.singles, p.singles + len(p.objects), len(p.presence)) for p in parts]
    spans = [slice(b[kind], b[kind + 1]) for b in bounds]
    features = {n: torch.cat([p.features[n][s] for p, s in zip(parts, spans, strict=True)]) for n in parts[0].features}
    presence = torch.cat([p.presence[s] for p, s in zip(parts, spans, strict=True)])
    return Shown(
        None, presence, 0, torch.cat([p.objects for p in parts]), torch.cat([p.boxes for p in parts]), features
    )


def draw_pairs(texts: Texts, shown: Shown, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Pairs of a batch: each passage with its picture and with a collage that shows what it names (YES), with pictures
    and a collage that show nothing it may name, and some with a picture of nothing (NO).

    Returns: pairs int64 [P, 2] (passage, picture) and labels float32 [P].
    """
    device, count = texts.named.device, shown.singles
    own = torch.arange(min(count, len(texts.named)), device=device)
    total, mixed = len(shown.presence), len(shown.objects)
    fits = texts.named.float() @ shown.presence.float().T > 0  # [B, R]
    clashes = texts.touched.float() @ shown.presence.float().T > 0
    score = torch.rand(fits.shape, generator=generator, device=device)
    kinds = {"single": slice(0, count), "collage": slice(count, count + mixed), "nothing": slice(count + mixed, total)}
    pairs, labels = [torch.stack([own, own], 1)], [torch.ones(len(own), device=device)]

    def add(allowed: Tensor, kind: str, many: int, label: float, share: float = 1.0) -> None:
        """Up to ``many`` random pictures of a kind for that share of the passages."""
        part = kinds[kind]
        best = torch.where(allowed[:, part], score[:, part], -1.0).topk(min(many, part.stop - part.start), dim=1)
        rows, columns = torch.nonzero((best.values >= 0) & (score[:, :1] < share), as_tuple=True)
        pairs.append(torch.stack([rows, best.indices[rows, columns] + part.start], 1))
        labels.append(torch.full((len(rows),), label, device=device))

    add(fits, "collage", 1, 1.0, 0.4)
    add(~clashes, "single", 1, 0.0)
    add(~clashes, "collage", 1, 0.0, 0.5)
    add(~clashes, "nothing", 1, 0.0, 0.12)
    return torch.cat(pairs), torch.cat(labels)
