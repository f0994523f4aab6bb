"""The training stages of the starter, names and match, and the material they share."""

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from musti_model.model import MustiModel

from ..loop import Batches, TrainSettings, train
from ..losses import FocalLoss
from .doubtful import doubtful_words
from .drawing import Album, TextBatches, Texts, text_batches
from .lexicon import LANGUAGES, Lexicon
from .objective import Objective
from .pairs import balanced_pairs
from .passages import PassageMill, load_passages
from .pictures import Pictures
from .reading import reading_scores
from .scoring import MODES, encode_pictures, pair_scores, score_pairs
from .towers import TEXT
from .typeset import text_pages

PAGES = 384
# Learning rates. Word embeddings stay as they are: a word that training never saw keeps its place among those that it did.
RATES = {
    "text.embeddings": 0.0, "text.encoder": 6e-5, "branches.vit.backbone": 1e-4, "branches.cnn.backbone": 4e-4, "fusion.alpha": 2e-2,
    "fusion.beta": 2e-2, "fusion.space.tau": 2e-2, "fusion.norm": 1e-4, "none_logit": 1e-2, "nothing_logit": 1e-2, "scale": 1e-2, "bias": 1e-2,
    "fusion.scalars": 1e-2,
}  # fmt: skip


def settle_gpu() -> None:
    """How a GPU is to compute: matrix products of float32 by its fast units, and attention by no library that prepares a kernel, for seconds, for each length
    of passage."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)


class Workshop:
    """What the stages share: pictures, passages, pairs, tokenizer, the album on the device."""

    def __init__(
        self, data: Path, work: Path, pictures: dict[str, Pictures], model: MustiModel, tokenizer: PreTrainedTokenizerFast,
        workers: int | None = None,
    ) -> None:  # fmt: skip
        self.objects = model.config.objects
        self.pictures, self.tokenizer, self.workers = pictures, tokenizer, workers
        self.padding = model.config.tokenizer_padding
        self.lexicons = {language: Lexicon(language, self.objects) for language in LANGUAGES}
        texts = [(p.language, p.text) for p in load_passages(data, self.lexicons)["train"]]
        self.doubtful = doubtful_words(texts, self.lexicons, data / "pretrained" / TEXT, work)
        self.passages = load_passages(data, self.lexicons, self.doubtful.words)
        self.pairs = {s: balanced_pairs(pictures[s], self.passages[s], seed=0) for s in ("dev", "test")}
        self.mill = PassageMill(self.passages["train"], self.lexicons, self.objects)
        self.record = {"model": model.config.to_dict(), "data": self._fingerprint()}

    def album(self, device: torch.device, **shares: Any) -> Album:
        """The training pictures on a device."""
        texts = [p.text for p in self.passages["train"][:2000]]
        size = max(b["image_size"] for b in self.record["model"]["branches"])
        return Album(self.pictures["train"], size, device, torch.from_numpy(text_pages(texts, PAGES, size, seed=3)), **shares)

    def _fingerprint(self) -> str:
        """Of all pictures' names, passages and pairs, split by split: equal for equal material."""
        parts = [[list(p.names), [t.text for t in self.passages[s]], [str(q) for q in self.pairs.get(s, ())]] for s, p in self.pictures.items()]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def epochs(self, steps: int, seed: int, drills: Callable[[int], float]) -> Batches:
        """Batches for ``training.loop.train``. drills: epoch -> share of its batches that are short texts, dense with names."""

        def make(epoch: int, first: int) -> Iterator[Texts]:
            data = TextBatches(self.mill, self.tokenizer, self.objects, steps, (seed, epoch), drills(epoch), padding=self.padding)
            return text_batches(data, first, self.workers)

        return make

    def dev(self, model: MustiModel) -> dict[str, Any]:
        """Scores on every third dev pair: quick, for choosing the best epoch."""
        pairs = self.pairs["dev"][::3]
        encoded = encode_pictures(model, self.pictures["dev"].pixels)
        scored = score_pairs(model, self.tokenizer, encoded, self.passages["dev"], pairs, modes=MODES if model.fusion.gated else ("learned",))
        result = pair_scores(model, scored, self.passages["dev"], pairs)
        return {k: result[k] for k in ("score", "auc", "threshold", "collapsed", "lost", "widest")}

    def dev_names(self, model: MustiModel) -> dict[str, Any]:
        """How well names are read and pictures named; the score is the mean of both."""
        reads = reading_scores(model, self.tokenizer, self.passages["dev"][::3])
        top1 = picture_top1(model, self.pictures["dev"])
        return {"score": (reads["average_precision"] + top1["both"]) / 2, "top1": top1, **{k: reads[k] for k in ("recall", "average_precision")}}


@torch.inference_mode()
def picture_top1(model: MustiModel, pictures: Pictures) -> dict[str, float]:
    """Share of the pictures whose object gets the highest logit, by branch and for both together."""
    named = {n: model.name_picture(t.float())[:, :-1].log_softmax(-1) for n, t in encode_pictures(model, pictures.pixels).items()}
    labels = torch.from_numpy(pictures.labels).to(next(iter(named.values())).device)
    named["both"] = sum(named.values())
    return {n: float((z.argmax(1) == labels).float().mean()) for n, z in named.items()}


def names_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int, steps: int) -> None:
    """Words and pictures learn the object prototypes; no pairs yet."""
    device = next(model.parameters()).device
    settings = TrainSettings(epochs=epochs, steps_per_epoch=steps, lr=1e-3, lr_of=RATES, batch_norm="frozen", layer_decay=0.9)
    strong = {"strength": 0.8, "collage_share": 0.4, "count": 160}
    record = shop.record | {"objective": strong}
    objective = Objective(shop.album(device, **strong))
    train(model, shop.epochs(steps, 1, lambda epoch: 0.5 if epoch < epochs / 2 else 0.25), objective, shop.dev_names, settings, folder, record)


def match_stage(model: MustiModel, shop: Workshop, folder: Path, epochs: int, steps: int) -> None:
    """The whole model on pairs with the focal loss; names stay part of it, so that the text goes on to be read word by word."""
    device = next(model.parameters()).device
    settings = TrainSettings(epochs=epochs, steps_per_epoch=steps, lr=6e-4, lr_of=RATES, batch_norm="frozen", layer_decay=0.9)
    mild, focal = {"strength": 0.5, "collage_share": 0.5, "count": 128}, {"gamma": 2.0, "alpha": 0.5}
    record = shop.record | {"objective": {**mild, "focal": focal}}
    objective = Objective(shop.album(device, **mild), FocalLoss(**focal))
    train(model, shop.epochs(steps, 2, lambda _epoch: 0.1), objective, shop.dev, settings, folder, record)
