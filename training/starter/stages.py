"""The training stages of the starter, names and match, and the material they share."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from musti_model.device import autocast
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..lexicon.naming import LANGUAGES, Lexicon
from ..loop.losses import FocalLoss
from ..loop.train import Batches, TrainSettings, train
from .doubtful import doubtful_words
from .drawing import Album, KeptAlbum, TextBatches, Texts, text_batches
from .objective import Objective, features_of
from .pairs import balanced_pairs
from .passages import PassageMill, load_passages
from .pictures import Pictures
from .reading import reading_scores
from .scoring import MODES, encode_pictures, pair_scores, score_pairs
from .towers import TEXT
from .typeset import text_pages

PAGES = 384


@dataclass(frozen=True)
class Recipe:
    """What fits the machine.

    names, match: batches of the stages, texts (see ``TextBatches``) and pictures (see ``Album``). lr, names_rates,
    match_rates: learning rates, and those of weights by the beginning of their name. each: pictures of each object
    whose features are kept for the stage "match", in which the backbones of the images then stay as they are; 0: none,
    and they go on learning. back: see ``toward_pretrained``. checkpoint_steps: see ``TrainSettings``.
    """

    names: dict[str, Any]
    match: dict[str, Any]
    lr: float
    names_rates: dict[str, float]
    match_rates: dict[str, float]
    each: int
    back: float
    checkpoint_steps: int


# Word embeddings stay as they are: a word that training never saw keeps its place among those that it did.
_RATES = {
    "text.embeddings": 0.0,
    "text.encoder": 1e-4,
    "fusion.pass_on": 1e-3,
    "fusion.alpha": 2e-2,
    "fusion.beta": 2e-2,
    "fusion.space.tau": 2e-2,
    "fusion.norm": 1e-4,
    "fusion.scalars": 1e-2,
    "none_logit": 1e-2,
    "nothing_logit": 1e-2,
    "scale": 1e-2,
    "bias": 1e-2,
}
_STILL = {"branches.vit.backbone": 0.0, "branches.cnn.backbone": 0.0}
# Two cores can afford the last stages of the image backbones, and with pairs none of them: all the time goes to the
# text and the gate.
_LAST = {f"branches.vit.backbone.{part}": 1e-4 for part in ("blocks.4", "blocks.5", "blocks.6", "norm")}
_LAST |= {f"branches.cnn.backbone.{part}": 2e-4 for part in ("blocks.5", "blocks.6", "conv_head", "bn2")}
SMALL = Recipe(
    names={"tokens": 2400, "most": 96, "strength": 0.8, "collage_share": 0.4, "count": 48},
    match={"tokens": 720, "most": 18, "strength": 0.5, "collage_share": 0.5, "count": 26},
    lr=3e-4,
    names_rates=_RATES | _STILL | _LAST,
    match_rates=_RATES | _STILL,
    each=80,
    back=0.0,
    checkpoint_steps=25,
)
# Image backbones that are trained already, and stay as they are in both stages.
STILL = replace(SMALL, names_rates=SMALL.match_rates)
_ALL = _RATES | {"text.encoder": 1.5e-4, "branches.vit.backbone": 1.5e-4, "branches.cnn.backbone": 3e-4}
LARGE = Recipe(
    names={"tokens": 9600, "most": 256, "strength": 0.8, "collage_share": 0.4, "count": 192},
    match={"tokens": 6000, "most": 144, "strength": 0.6, "collage_share": 0.5, "count": 144},
    lr=5e-4,
    names_rates=_ALL,
    match_rates=_ALL,
    each=0,
    back=0.2,
    checkpoint_steps=0,
)


def settle_arithmetic() -> None:
    """How the machine is to compute. On a CPU numbers too small to matter are zero, since it may compute with them far
    more slowly (to be called before other threads are there, which take it over). On a GPU matrix products of float32
    by its fast units, and attention by no library that prepares a kernel, for seconds, for each length of passage."""
    torch.set_flush_denormal(True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)


class Workshop:
    """What the stages share: pictures, passages, pairs, tokenizer, the album on the device."""

    def __init__(
        self,
        data: Path,
        work: Path,
        pictures: dict[str, Pictures],
        model: MustiModel,
        tokenizer: PreTrainedTokenizerBase,
        workers: int | None = None,
    ) -> None:
        self.objects = model.config.objects
        self.pictures, self.tokenizer, self.workers = pictures, tokenizer, workers
        self.padding = model.config.tokenizer_padding
        self.lexicons = {language: Lexicon(language, self.objects) for language in LANGUAGES}
        texts = [(p.language, p.text) for p in load_passages(data, self.lexicons)["train"]]
        self.doubtful = doubtful_words(texts, self.lexicons, data / "pretrained" / TEXT, work)
        self.passages = load_passages(data, self.lexicons, self.doubtful.words)
        self.pairs = {s: balanced_pairs(pictures[s], self.passages[s], seed=0) for s in ("dev", "test")}
        self.mill = PassageMill(self.passages["train"], self.lexicons, self.objects)
        self.record: dict[str, Any] = {"model": model.config.to_dict(), "data": self._fingerprint()}

    def album(self, device: torch.device, **shares: Any) -> Album:
        """The training pictures on a device."""
        texts = [p.text for p in self.passages["train"][:2000]]
        size = max(b["image_size"] for b in self.record["model"]["branches"])
        return Album(
            self.pictures["train"], size, device, torch.from_numpy(text_pages(texts, PAGES, size, seed=3)), **shares
        )

    def kept(self, model: MustiModel, each: int, **shares: Any) -> KeptAlbum:
        """The same, as the model's backbones see them; of so many pictures of each object."""

        @torch.no_grad()
        def encode(pixels: Tensor) -> dict[str, Tensor]:
            with autocast(pixels.device):
                return features_of(model, pixels)

        model.eval()
        return KeptAlbum(self.album(_device(model), **shares), encode, each)

    def _fingerprint(self) -> str:
        """Of all pictures' names, passages and pairs, split by split: equal for equal material."""
        parts = [
            [list(p.names), [t.text for t in self.passages[s]], [str(q) for q in self.pairs.get(s, ())]]
            for s, p in self.pictures.items()
        ]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def epochs(self, steps: int, seed: int, drills: Callable[[int], float], tokens: int, most: int) -> Batches:
        """Batches for ``training.loop.train.train``. drills: epoch -> share of its batches that are short texts, dense
        with names; tokens, most: of a batch."""

        def make(epoch: int, first: int) -> Iterator[Texts]:
            data = TextBatches(
                self.mill, self.tokenizer, self.objects, steps, (seed, epoch), drills(epoch), tokens, most, self.padding
            )
            return text_batches(data, first, self.workers)

        return make

    def dev(self, model: MustiModel) -> dict[str, Any]:
        """Scores on a sixth of the dev pairs (by passage): quick, for choosing the best epoch."""
        pairs = [p for p in self.pairs["dev"] if p.passage % 6 == 0]
        shown = sorted({p.picture for p in pairs})
        encoded = encode_pictures(model, self.pictures["dev"].pixels[shown])
        pairs = [replace(p, picture=shown.index(p.picture)) for p in pairs]
        scored = score_pairs(
            model,
            self.tokenizer,
            encoded,
            self.passages["dev"],
            pairs,
            modes=MODES if model.fusion.gated else ("learned",),
        )
        result = pair_scores(model, scored, self.passages["dev"], pairs)
        return {k: result[k] for k in ("score", "auc", "threshold", "collapsed", "lost", "widest")}

    def dev_names(self, model: MustiModel) -> dict[str, Any]:
        """How well names are read and pictures named; the score is the mean of both."""
        reads = reading_scores(model, self.tokenizer, self.passages["dev"][::6])
        pictures = self.pictures["dev"]
        top1 = picture_top1(model, encode_pictures(model, pictures.pixels[::4]), pictures.labels[::4])
        return {
            "score": (reads["average_precision"] + top1["both"]) / 2,
            "top1": top1,
            **{k: reads[k] for k in ("recall", "average_precision")},
        }


@torch.inference_mode()
def picture_top1(model: MustiModel, encoded: dict[str, ImageTokens], labels: np.ndarray) -> dict[str, float]:
    """Share of the pictures whose object gets the highest logit, by branch and for both together. labels: int [N]."""
    named = {n: model.name_picture(t.float())[:, :-1].log_softmax(-1) for n, t in encoded.items()}
    named["both"] = reduce(torch.add, named.values())
    truth = torch.from_numpy(labels).to(named["both"].device)
    return {n: float((z.argmax(1) == truth).float().mean()) for n, z in named.items()}


def names_stage(
    model: MustiModel,
    shop: Workshop,
    folder: Path,
    epochs: int,
    steps: int,
    recipe: Recipe = SMALL,
    album: KeptAlbum | None = None,
) -> None:
    """Words and pictures learn the object prototypes; no pairs yet. album: where the image backbones do not learn."""
    data = shop.epochs(steps, 1, lambda epoch: 0.5 if epoch < epochs / 2 else 0.25, **texts_of(recipe.names))
    objective = Objective(album or shop.album(_device(model), **shown_of(recipe.names)))
    train(
        model,
        data,
        objective,
        shop.dev_names,
        _settings(recipe, recipe.names_rates, epochs, steps),
        folder,
        shop.record | {"objective": recipe.names},
    )


def match_stage(
    model: MustiModel, shop: Workshop, folder: Path, epochs: int, steps: int, recipe: Recipe = SMALL
) -> None:
    """The whole model on pairs with the focal loss; names stay part of it, so that the text goes on to be read word by
    word."""
    data, focal = shop.epochs(steps, 2, lambda _epoch: 0.1, **texts_of(recipe.match)), {"gamma": 2.0, "alpha": 0.5}
    shown = shown_of(recipe.match)
    album = shop.kept(model, recipe.each, **shown) if recipe.each else shop.album(_device(model), **shown)
    settings = _settings(recipe, recipe.match_rates, epochs, steps)
    train(
        model,
        data,
        Objective(album, FocalLoss(focal["gamma"], focal["alpha"])),
        shop.dev,
        settings,
        folder,
        shop.record | {"objective": recipe.match | {"focal": focal}},
    )


def texts_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The part of a batch's settings that is about texts."""
    return {k: batch[k] for k in ("tokens", "most")}


def shown_of(batch: dict[str, Any]) -> dict[str, Any]:
    """The part that is about pictures."""
    return {k: v for k, v in batch.items() if k not in ("tokens", "most")}


def _device(model: MustiModel) -> torch.device:
    return next(model.parameters()).device


def _settings(recipe: Recipe, rates: dict[str, float], epochs: int, steps: int) -> TrainSettings:
    return TrainSettings(
        epochs=epochs,
        steps_per_epoch=steps,
        lr=recipe.lr,
        lr_of=rates,
        batch_norm="frozen",
        layer_decay=0.95,
        warmup=0.08,
        checkpoint_steps=recipe.checkpoint_steps,
    )
