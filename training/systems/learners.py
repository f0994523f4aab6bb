"""One interface to every system: pairs -> batch -> logits, and a folder of weights that can be loaded again."""

import json
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from musti_model.device import autocast, choose_device
from musti_model.errors import InputError
from musti_model.model import MustiModel
from musti_model.older import renamed_state
from musti_model.processing import MustiProcessor, clean_passage, open_image
from musti_model.records import MustiPair
from musti_model.storage import restored
from musti_model.text_tower import ARCHITECTURES
from musti_model.tokenizer import load_tokenizer
from musti_model.weights import STARTER, find_weights

from ..lexicon.objects import gate_labels
from ..lexicon.vocabulary import Vocabulary
from ..loop.losses import gate_loss
from ..loop.train import Step
from . import LossSettings, System
from .detector import DetectorBert, DetectorConfig, NameBook, load_namer

# where each kind of text tower starts
PUBLISHED = {"bert": "bert-base-multilingual-cased", "xlm-roberta": "xlm-roberta-base"}
KEPT_BYTES = 4_000_000_000  # decoded pictures kept in memory


class SquareCache:
    """Pictures of pairs as squares of the model's size, decoded once while there is room."""

    def __init__(self, processor: MustiProcessor, root: Path) -> None:
        self.processor, self.root, self.bytes = processor, root, 0
        self.kept: OrderedDict[str, dict[tuple[int, str], np.ndarray]] = OrderedDict()

    def __call__(self, name: str) -> dict[tuple[int, str], np.ndarray]:
        """The squares of a picture (``MustiProcessor.squares``). Raises InputError."""
        if name not in self.kept:
            self.kept[name] = self.processor.squares(open_named(self.root, name))
            self.bytes += sum(a.nbytes for a in self.kept[name].values())
            while self.bytes > KEPT_BYTES and len(self.kept) > 1:
                self.bytes -= sum(a.nbytes for a in self.kept.popitem(last=False)[1].values())
        return self.kept[name]


def open_named(root: Path, name: str) -> Image.Image:
    """A picture; of one that was lost or damaged since training began, the error says which. Raises: InputError."""
    try:
        return open_image(root / name)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


class MustiLearner:
    """A MustiModel with its processor. vocabulary: names objects for the gate's own loss; None where it is left out."""

    kind = "musti"

    def __init__(
        self, model: MustiModel, processor: MustiProcessor, root: Path, vocabulary: Vocabulary | None = None
    ) -> None:
        self.model, self.processor, self.vocabulary = model, processor, vocabulary
        self.pictures = SquareCache(processor, root)

    def batch(self, pairs: Sequence[MustiPair]) -> dict[str, Any]:
        """{"images": {branch: [B, 3, S, S]}, "input_ids", "attention_mask" [B, T], "labels" [B]}, and "gate" [B, T]
        where the gate has a loss of its own (``gate_labels``). Raises InputError."""
        texts = self.processor.passages([p.text for p in pairs])
        images = self.processor.normalised([self.pictures(p.image) for p in pairs])
        gate = {} if self.vocabulary is None else {"gate": gate_labels(texts, pairs, self.vocabulary)}
        return {
            "images": images,
            "input_ids": texts.input_ids,
            "attention_mask": texts.attention_mask,
            "labels": labels_of(pairs),
        } | gate

    def logits(self, model: MustiModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
        """-> logits [B], and each branch's own [B, branches] where there are several."""
        return self.scored(model, batch)[:2]

    def scored(self, model: MustiModel, batch: dict[str, Any]) -> tuple[Tensor, Tensor | None, list[Tensor]]:
        """``logits``, and how far each branch's gate opens at each wordpiece, [B, T] each, where that is to be
        learned."""
        encoded, words = model.encode_images(batch["images"]), model.words(batch["input_ids"], batch["attention_mask"])
        output = model.match_words(encoded, words)
        alone = model.scale * output.similarities + model.bias if output.similarities.shape[1] > 1 else None
        return (
            output.logits,
            alone,
            [model.fusion.meet(t, words).opening for t in encoded.values()] if "gate" in batch else [],
        )

    def save(self, folder: Path, threshold: float, temperature: float) -> None:
        """A folder that ``MustiPipeline`` loads."""
        config = replace(self.model.config, threshold=threshold, temperature=temperature)
        self.model.config, self.model._hub_mixin_config = config, config.to_dict()
        self.model.save_pretrained(folder)
        MustiProcessor(config, self.processor.tokenizer).save_pretrained(folder)


class DetectorLearner:
    """DetectorBert with its tokenizer and the names found so far."""

    kind = "detector"

    def __init__(self, model: DetectorBert, tokenizer: PreTrainedTokenizerBase, book: NameBook, root: Path) -> None:
        self.model, self.tokenizer, self.book, self.root = model, tokenizer, book, root

    def batch(self, pairs: Sequence[MustiPair]) -> dict[str, Any]:
        """{"input_ids", "attention_mask", "token_type_ids" [B, T], "labels" [B]}; the names are read as a first
        sentence."""
        names = [self.book(self.root / p.image) for p in pairs]
        first = [", ".join(n) + "." if n else "." for n in names]
        encoded = self.tokenizer(
            first,
            [clean_passage(p.text) for p in pairs],
            truncation="only_second",
            max_length=self.model.config.text_length,
            padding="longest",
            return_token_type_ids=True,
            return_tensors="pt",
        )
        return {k: encoded[k] for k in ("input_ids", "attention_mask", "token_type_ids")} | {"labels": labels_of(pairs)}

    def logits(self, model: DetectorBert, batch: dict[str, Any]) -> tuple[Tensor, None]:
        """-> logits [B]."""
        return model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"]), None

    def scored(self, model: DetectorBert, batch: dict[str, Any]) -> tuple[Tensor, None, list[Tensor]]:
        """As ``MustiLearner.scored``; there is no gate."""
        return *self.logits(model, batch), []

    def save(self, folder: Path, threshold: float, temperature: float) -> None:
        """A folder that ``load_learner`` loads; the page runs MustiModels only."""
        self.model.config = replace(self.model.config, threshold=threshold, temperature=temperature)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.contiguous() for k, v in self.model.state_dict().items()}, folder / "model.safetensors")
        (folder / "config.json").write_text(json.dumps(self.model.config.to_dict(), indent=1) + "\n")
        self.tokenizer.save_pretrained(folder)
        self.book.save(folder / "names.json")


Learner = MustiLearner | DetectorLearner


def labels_of(pairs: Sequence[MustiPair]) -> Tensor:
    """float32 [B]; a pair without a label counts as NO."""
    return torch.tensor([float(p.label or 0) for p in pairs])


def loss_step(learner: Learner, settings: LossSettings) -> Step:
    """The step of the training loop: the loss on the logits, on each branch's own by ``settings.branches``, and the
    gate's by ``settings.gate``."""
    criterion = settings.make()

    def step(model: Any, batch: dict[str, Any]) -> tuple[Tensor, dict[str, float]]:
        batch = to_device(batch, next(model.parameters()).device)
        logits, alone, openings = learner.scored(model, batch)
        parts = {"pairs": (1.0, criterion(logits.float(), batch["labels"]))}
        if alone is not None and settings.branches:
            parts["branches"] = (
                settings.branches,
                sum(criterion(z.float(), batch["labels"]) for z in alone.T) / alone.shape[1],
            )
        if openings and settings.gate:
            losses = [
                gate_loss(opening, batch["gate"], settings.gate_other, settings.gate_none) for opening in openings
            ]
            parts["gate"] = (settings.gate, sum(losses) / len(losses))
        loss = sum(weight * part for weight, part in parts.values())
        return loss, {name: part.item() for name, (_, part) in parts.items()} if len(parts) > 1 else {}

    return step


def to_device(batch: Any, device: torch.device) -> Any:
    """Tensors in nested dictionaries, moved."""
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}
    return batch.to(device, non_blocking=True)


@torch.inference_mode()
def pair_logits(
    learner: Learner, pairs: Sequence[MustiPair], size: int = 32, precision: str = "float32", quiet: bool = False
) -> np.ndarray:
    """Logits [N], before temperature; pairs of like length share a batch."""
    model: Any = learner.model
    model.eval()
    device = next(model.parameters()).device
    order = sorted(range(len(pairs)), key=lambda i: len(pairs[i].text))
    logits = np.zeros(len(pairs))
    for start in tqdm(range(0, len(pairs), size), desc="scoring", mininterval=5, leave=False, disable=quiet):
        rows = order[start : start + size]
        batch = to_device(learner.batch([pairs[i] for i in rows]), device)
        with autocast(device, precision):
            logits[rows] = learner.logits(model, batch)[0].float().cpu().numpy()
    return logits


class PairBatches:
    """Batches for the training loop: an epoch's order depends on seed and epoch alone; each process takes its share of
    every batch."""

    def __init__(
        self, learner: Learner, pairs: Sequence[MustiPair], size: int, seed: int, rank: int = 0, world: int = 1
    ) -> None:
        if size % world:
            raise ValueError(f"A batch of {size} cannot be shared by {world} processes; choose a multiple of {world}.")
        self.learner, self.pairs, self.size, self.seed, self.rank, self.world = learner, pairs, size, seed, rank, world

    def __call__(self, epoch: int, first: int) -> Iterator[dict[str, Any]]:
        """Batches of an epoch from number ``first`` on."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs))
        for number in range(first, len(order) // self.size):
            rows = order[number * self.size : (number + 1) * self.size][self.rank :: self.world]
            yield self.learner.batch([self.pairs[i] for i in rows])


# Building -------------------------------------------------------------------------------------------------------------


def build(
    system: System,
    root: Path,
    start: str | None = None,
    names: Path | None = None,
    device: str | torch.device = "cpu",
    lead: bool = True,
) -> tuple[Learner, str]:
    """A system's learner and one sentence on where its weights come from.

    Args:
        root: folder of the pictures. start: "pretrained", "random" or weights (folder, Hub id, "starter"); None: as the
            system says.
        names: file that keeps what the detector found, written by the process that leads; device: of the detector.

    Raises: WeightsError, OSError when weights or tokenizer cannot be had.
    """
    start = start or system.start
    if isinstance(system.model, DetectorConfig):
        model: Any = DetectorBert(system.model)
        namer = partial(load_namer, system.model.detector, system.model.confidence, device)
        book = NameBook(namer, names, write=lead and names is not None)
    else:
        model = MustiModel(system.model)
    if start == "pretrained":
        tokenizer, said = (
            _pretrained(model),
            "Backbones and BERT start from their published weights, everything else anew.",
        )
    elif start == "random":
        tokenizer, said = _tokenizer(model), "All weights start anew."
    else:
        tokenizer, said = _from_weights(model, start)
    if isinstance(system.model, DetectorConfig):
        return DetectorLearner(model, tokenizer, book, root), said
    return MustiLearner(
        model, MustiProcessor(system.model, tokenizer), root, Vocabulary() if system.loss.gate else None
    ), said


def _tokenizer(model: MustiModel | DetectorBert) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(PUBLISHED[model.text.config.model_type])


def _pretrained(model: MustiModel | DetectorBert) -> PreTrainedTokenizerBase:
    """Backbones and text tower from their published weights. Raises ValueError where those have other sizes."""
    try:
        for branch in getattr(model, "branches", {}).values():
            made = timm.create_model(
                branch.config.backbone, pretrained=True, num_classes=0, **branch.config.backbone_args
            )
            branch.backbone.load_state_dict(made.state_dict())
        kind = model.text.config.model_type
        text = ARCHITECTURES[kind][1].from_pretrained(PUBLISHED[kind])
        for part in ("embeddings", "encoder", "pooler"):
            getattr(model.text, part).load_state_dict(getattr(text, part).state_dict())
    except RuntimeError as error:
        raise ValueError(
            "The published weights have other sizes than this system; start it from other weights, or at random."
        ) from error
    return _tokenizer(model)


def _from_weights(model: nn.Module, start: str) -> tuple[PreTrainedTokenizerBase, str]:
    """Takes every tensor of the same name and shape; says how many."""
    weights = find_weights(STARTER if start == "starter" else start)
    given, own = renamed_state(restored(load_file(weights.own_folder / "model.safetensors"))), model.state_dict()
    taken = {k: v.to(own[k].dtype) for k, v in given.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict(taken, strict=False)
    new = sorted(
        {
            k.split(".")[0] if not k.startswith("branches.") else ".".join(k.split(".")[:3])
            for k in own.keys() - taken.keys()
        }
    )
    said = f"{len(taken)} of {len(own)} tensors start from {weights.name} ({weights.revision})" + (
        f"; new: {', '.join(new)}." if new else "."
    )
    return load_tokenizer(weights.own_folder), said


def load_learner(folder: Path, root: Path, device: str | torch.device | None = None) -> Learner:
    """From a folder that ``save`` wrote, on a device (None chooses). Raises WeightsError, OSError, ValueError."""
    device = choose_device(device)[0]
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if "detector" not in values:
        model, processor = find_weights(folder).load()
        return MustiLearner(model.to(device), processor, root)
    config = DetectorConfig(**values)
    detector = DetectorBert(config)
    detector.load_state_dict(load_file(folder / "model.safetensors"))
    book = NameBook(lambda: load_namer(config.detector, config.confidence, device), folder / "names.json")
    return DetectorLearner(detector.to(device), load_tokenizer(folder), book, root)
