"""MustiPipeline: find weights, choose device and precision; predict, rank, explain."""

import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from . import explain as maths
from .branches import ImageTokens
from .errors import InputError, Sentence, WeightsError
from .evidence import Case, Evidence, evidence_of
from .explain import Explanation, Gate, GateWeights, Maps
from .faithfulness import Faithfulness, of_regions, of_words
from .gate_effect import GateEffect, gate_effect
from .model import MustiModel, MustiOutput
from .processing import MustiProcessor, Passages, open_image
from .weights import Weights, find_weights
from .what_if import Alteration, altered_logit

Picture = str | Path | Image.Image
SEEN = 0.4  # probability under which the best guess at what the picture shows is called doubtful
LARGE = 50_000_000  # parameters above which a CPU is too slow for the hundreds of forward passes of the best methods
NAMED = 0.5  # probability from which a wordpiece counts as naming an object


@dataclass(frozen=True)
class Prediction:
    """One pair's answer.

    label: "YES" or "NO"; probability: 0..1, of YES; threshold: YES from here; similarities: {branch: cosine}; votes: {branch: its term in
    the logit} and vote_bias; logit: their sum; notices: sentences for the reader; objects_in_picture: (object, probability), best
    three; objects_in_passage: (object, word); both empty for weights without a naming head; unsure: such weights read none of their
    objects in the passage, so that the answer says little.
    """

    label: str
    probability: float
    threshold: float
    similarities: dict[str, float]
    votes: dict[str, float]
    vote_bias: float
    logit: float
    notices: list[str] = field(default_factory=list)
    objects_in_picture: list[tuple[str, float]] = field(default_factory=list)
    objects_in_passage: list[tuple[str, str]] = field(default_factory=list)
    unsure: bool = False

    def to_json(self) -> dict[str, Any]:
        """The stable public shape: label, probability, threshold, similarities, notices."""
        keys = ("label", "probability", "threshold", "similarities", "notices")
        return {k: getattr(self, k) for k in keys}


def choose_device(device: str | torch.device | None = None) -> tuple[torch.device, torch.dtype | None]:
    """Device (CUDA, MPS, CPU in this order) and autocast type: bfloat16 on CUDA and on CPUs that multiply it, else None (float32)."""
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    chosen = torch.device(device)
    if chosen.type == "cuda":
        return chosen, torch.bfloat16
    if chosen.type == "cpu" and getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)():
        return chosen, torch.bfloat16
    return chosen, None


class MustiPipeline:
    """Pictures and passages in, answers and explanations out. One instance may serve many users: no result is kept on it."""

    def __init__(
        self,
        model: MustiModel,
        processor: MustiProcessor,
        weights: Weights | None = None,
        device: str | None = None,
        precision: str = "auto",
    ) -> None:
        self.device, self.autocast = choose_device(device)
        if precision == "float32":
            self.autocast = None
        self.model = model.to(self.device).eval().requires_grad_(False)
        self.processor, self.config = processor, model.config
        self.weights = weights or Weights(None, self.config.name, "unsaved")
        self.name, self.revision, self.card = self.weights.name, self.weights.revision, self.weights.card()

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, device: str | None = None, precision: str = "auto"
    ) -> "MustiPipeline":
        """Loads weights.

        Args:
            source: a folder, or a Hub id, optionally ``id@revision``. None: ``$MUSTI_MODEL`` if set, else the embedded starter.
            device: "cuda", "mps", "cpu"; None chooses.
            precision: "auto" (bfloat16 autocast where the device has it) or "float32".

        Raises: WeightsError with one sentence when they cannot be had.
        """
        weights = find_weights(source)
        model, processor = weights.load()
        return cls(model, processor, weights, device, precision)

    @property
    def objects(self) -> tuple[str, ...]:
        """Objects the naming head knows; empty without one."""
        return self.config.objects

    def __call__(self, image: Picture, passage: str) -> Prediction:
        """One pair. Raises InputError."""
        return self.predict([image], [passage])[0]

    def predict(self, images: Sequence[Picture], passages: Sequence[str], batch: int = 16) -> list[Prediction]:
        """Pairs (images[i], passages[i]). Raises InputError, also for lists of unequal length."""
        if len(images) != len(passages):
            raise InputError("There are {pictures} pictures and {passages} passages; give as many of each.", pictures=len(images), passages=len(passages))
        result = []
        for start in range(0, len(images), batch):
            rows = slice(start, start + batch)
            with self._inference():
                texts = self.processor.passages(list(passages[rows]))
                encoded = self._encode(open_image(i) for i in images[rows])
                result += self._answer(encoded, texts, self._read(texts))
        return result

    def rank(
        self, images: Picture | Sequence[Picture], passages: str | Sequence[str], batch: int = 16
    ) -> list[tuple[int, Prediction]]:
        """One picture against passages, or pictures against one passage: (index, Prediction), best first. The one side is encoded once
        (with a gate, the passage meets each picture before its encoder, which therefore runs for every pair).

        Raises: InputError.
        """
        one_image = isinstance(images, (str, Path, Image.Image))
        if one_image == isinstance(passages, str):
            raise InputError("Rank takes one picture with a list of passages, or a list of pictures with one passage.")
        answers: list[Prediction] = []
        many = list(passages if one_image else images)
        with self._inference():
            if one_image:
                encoded = self._encode([open_image(images)])
            else:
                texts = self.processor.passages([passages])
                read = self._read(texts)
            for start in range(0, len(many), batch):
                part = many[start : start + batch]
                if one_image:
                    texts = self.processor.passages(part)
                    read = self._read(texts)
                else:
                    encoded = self._encode(open_image(i) for i in part)
                answers += self._answer(encoded, texts, read)
        return sorted(enumerate(answers), key=lambda pair: -pair[1].probability)

    @property
    def many_passes(self) -> bool:
        """Whether hundreds of forward passes for one explanation are bearable: on an accelerator, or for a small model."""
        return self.device.type != "cpu" or sum(p.numel() for p in self.model.parameters()) <= LARGE

    def explain(self, image: Picture, passage: str, evidence: bool = True) -> Explanation:
        """One pair with gate shares, attention maps and Grad-CAM; and with evidence and the gate's effect, which take many more forward passes,
        unless ``evidence`` is False. A large model on a CPU gets evidence from gradients (``Evidence.methods`` says which). Raises InputError."""
        started = time.perf_counter()
        texts = self.processor.passages([passage])
        picture = open_image(image)
        images = {n: t.to(self.device) for n, t in self.processor.images([picture]).items()}
        ids, mask = texts.input_ids.to(self.device), texts.attention_mask.to(self.device)
        # Gradients on, also inside a caller's no_grad: without them Grad-CAM would silently be nothing.
        with torch.inference_mode(False), torch.enable_grad(), self._autocast():
            output = self.model(images, ids, mask, return_internals=True)
            inside = output.internals
            maps = list(inside.feature_maps.items())
            gradients = torch.autograd.grad(output.logits.sum(), [m for _, m in maps]) if maps else ()
        cams = {
            n: maths.grad_cam(m[0].detach().float().cpu(), g[0].float().cpu())
            for (n, m), g in zip(maps, gradients, strict=True)
        }
        with self._inference():
            prediction = self._prediction(output, 0, texts, self._seen(inside.image_vectors), self._read(texts))
        result = self._explanation(prediction, picture, texts, output, cams, self._settings())
        if evidence:
            case = self._case(images, texts)
            result = replace(result, evidence=self._evidence(case, picture, result), gate_effect=self._gate_effects(case))
        result.settings["seconds"] = round(time.perf_counter() - started, 3)
        return result

    def faithfulness(self, image: Picture, passage: str, explanation: Explanation) -> dict[str, Faithfulness]:
        """How faithful each explanation of this very pair is, all measured by the whole model's answer.

        Returns: "words" and "regions" (evidence of the whole model), "words:<branch>" and "regions:<branch>" (of one), "attention:<branch>" (of the
            words), "effect:<branch>" (of patches through the gate), and each of ``explanation.maps`` by its name. What has no map is left out.

        Raises: InputError.
        """
        case, whole, answer = self.case(image, passage), explanation.evidence, explanation.prediction.label
        if whole is None:
            raise InputError("This explanation was made without evidence; make it again with evidence=True.")
        parts = {"": whole} | {f":{name}": part for name, part in whole.branches.items()}
        sign = 1 if answer == "YES" else -1  # attention is no evidence against: its strongest goes first, whatever the answer
        words = {f"words{n}": torch.tensor(e.words) for n, e in parts.items()}
        words |= {f"attention:{n}": sign * torch.tensor(values) for n, values in explanation.word_attention.items()}
        maps = {f"regions{n}": e.grid for n, e in parts.items() if e.grid is not None}
        maps |= {f"effect:{n}": torch.from_numpy(e.patches) for n, e in explanation.gate_effect.items() if e.patches is not None}
        maps |= {n: sign * grid for n, grid in explanation.maps.grids.items()}
        with torch.inference_mode(), self._autocast():
            return of_words(case, words, answer) | (of_regions(case, maps, answer) if maps else {})

    def what_if(self, image: Picture, passage: str, alteration: Alteration) -> float:
        """Probability of YES of an altered pair. Raises InputError."""
        case = self.case(image, passage)
        with torch.inference_mode(), self._autocast():
            return self._probability(altered_logit(case, alteration))

    def case(self, image: Picture, passage: str) -> Case:
        """One pair as the methods of ``evidence``, ``faithfulness`` and ``gate_effect`` take it. Raises InputError."""
        texts = self.processor.passages([passage])
        return self._case({n: t.to(self.device) for n, t in self.processor.images([open_image(image)]).items()}, texts)

    # Inside ---------------------------------------------------------------------------------------------------------------------

    def _autocast(self):
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with torch.inference_mode(), self._autocast():
            yield

    def _case(self, images: dict[str, Tensor], texts: Passages) -> Case:
        with torch.inference_mode(False), torch.no_grad(), self._autocast():
            encoded = {n: t.float() for n, t in self.model.encode_images(images).items()}
        ids, mask = texts.input_ids.to(self.device), texts.attention_mask.to(self.device)
        return Case(self.model, images, encoded, ids, mask, [w.pieces for w in texts.words[0]])

    def _evidence(self, case: Case, picture: Image.Image, explanation: Explanation) -> Evidence:
        with torch.inference_mode(False), torch.enable_grad(), self._autocast():
            evidence = evidence_of(case, picture.size, *(() if self.many_passes else ("relevance", "relevance")))
        p = explanation.prediction
        if p.label == "YES" or not p.objects_in_picture:
            return evidence
        # "Why NO": what the passage would have had to name. At the front, because a long passage's end is not read.
        names = [name for name, _ in p.objects_in_picture]
        answers = self.rank(picture, [f"{name.replace('_', ' ')}. {explanation.passage}" for name in names])
        return replace(evidence, missing=[(names[i], answer.probability) for i, answer in answers])

    def _gate_effects(self, case: Case) -> dict[str, GateEffect]:
        return {n: gate_effect(case, n) for n in case.encoded} if self.config.fusion == "tsf" else {}

    def _encode(self, pictures: Iterable[Image.Image]) -> dict[str, ImageTokens]:
        images = self.processor.images(pictures)
        return self.model.encode_images({n: t.to(self.device) for n, t in images.items()})

    def _answer(self, encoded: dict[str, ImageTokens], texts: Passages, read: list) -> list[Prediction]:
        """Pairs row by row; one picture or one passage stands for all rows of the other side."""
        output = self.model.match(encoded, texts.input_ids.to(self.device), texts.attention_mask.to(self.device))
        seen = self._seen({n: self.model.image_vector(t) for n, t in encoded.items()})
        return [self._prediction(output, row, texts, seen, read) for row in range(len(output.logits))]

    def _seen(self, vectors: dict[str, Tensor]) -> list[list[tuple[str, float]]]:
        """The best three objects named by each picture's vectors, mean of the branches; empty without a naming head."""
        if not self.objects:
            return [[] for _ in next(iter(vectors.values()))]
        named = torch.stack([self.model.name_vector(v).softmax(-1) for v in vectors.values()]).mean(0).float().cpu()
        best = named.topk(min(3, len(self.objects)))
        return [
            [(self.objects[i], round(p, 4)) for p, i in zip(values, indices, strict=True)]
            for values, indices in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]

    def _read(self, texts: Passages) -> list[list[tuple[str, str]]]:
        """The objects named by each passage, word by word, without the picture; empty without a naming head."""
        if not self.objects:
            return [[] for _ in texts.texts]
        named = self.model.name_text(texts.input_ids.to(self.device), texts.attention_mask.to(self.device))
        named = named.float().softmax(-1).cpu()
        passages = []
        for row, words in enumerate(texts.words):
            best = [named[row, list(w.pieces)].mean(0)[:-1].max(-1) for w in words]
            passages.append([(self.objects[int(b.indices)], w.text) for b, w in zip(best, words, strict=True) if b.values >= NAMED])
        return passages

    def _probability(self, logit: float) -> float:
        return float(torch.tensor(logit / self.config.temperature, dtype=torch.float64).sigmoid())  # without an overflow

    def _prediction(self, output: MustiOutput, row: int, texts: Passages, seen: list, read: list) -> Prediction:
        names = [b.name for b in self.config.branches]
        logit = float(output.logits[row])
        if not math.isfinite(logit):
            raise WeightsError("The weights {name} give no number for this pair; they are damaged or were trained badly.", name=self.name)
        probability = self._probability(logit)
        seen, read, notices = (side[row if len(side) > 1 else 0] for side in (seen, read, texts.notices))
        notices = list(notices)
        unsure = bool(self.objects) and not read
        if unsure:
            notices.append(
                Sentence("The model found none of the {count} smell objects it knows in this passage, so its answer says little.", count=len(self.objects))
            )
        if seen and seen[0][1] < SEEN:
            guess, share = seen[0]
            notices.append(
                Sentence("The model is not sure what the picture shows: its best guess, {object}, has {share:.0%}.", object=Sentence(guess), share=share)
            )
        return Prediction(
            label="YES" if probability >= self.config.threshold else "NO",
            probability=probability,
            threshold=self.config.threshold,
            similarities=_by_name(names, output.similarities[row]),
            votes=_by_name(names, output.votes[row]),
            vote_bias=float(output.vote_bias),
            logit=logit,
            notices=notices,
            objects_in_picture=seen,
            objects_in_passage=read,
            unsure=unsure,
        )

    def _explanation(
        self, prediction: Prediction, picture: Image.Image, texts: Passages, output: MustiOutput, cams: dict[str, Tensor],
        settings: dict[str, Any],
    ) -> Explanation:  # fmt: skip
        inside = output.internals
        words = texts.words[0]
        pieces = [w.pieces for w in words]
        gates, grids, heads, word_attention = {}, {}, {}, {}
        for name, grid in inside.grid.items():
            if inside.gate_image is not None:
                share = maths.image_share(_first(inside.gate_image[name]), _first(inside.gate_text))
                patches = None
                if grid is not None:
                    patches = maths.to_places(share, _first(inside.place_weights[name]), grid)
                    grids[f"gate:{name}"] = patches
                gates[name] = Gate(maths.to_words(share, pieces), None if patches is None else patches.numpy())
            if name in inside.image_attention:
                attention = _first(inside.image_attention[name])
                grids[f"rollout:{name}"] = maths.rollout(attention).reshape(grid)
                heads[name] = maths.class_attention(attention).reshape(-1, *grid).numpy()
            if name in cams:
                grids[f"gradcam:{name}"] = cams[name]
            word_attention[name] = maths.to_words(maths.class_word_attention(_first(inside.text_attention[name])), pieces)
        gate = self.model.gate
        weights = GateWeights(*gate.weight[0].tolist(), gate.bias.item()) if self.config.fusion == "tsf" else None
        return Explanation(
            prediction=prediction, image=picture, passage=texts.texts[0], words=[w.text for w in words],
            word_spans=[(w.start, w.end) for w in words], gates=gates, gate_weights=weights, maps=Maps(grids, *picture.size), heads=heads,
            word_attention=word_attention, settings=settings,
        )  # fmt: skip

    def _settings(self) -> dict[str, Any]:
        import timm
        import transformers

        from . import __version__

        versions = {"python": platform.python_version(), "musti_model": __version__}
        versions |= {m.__name__: m.__version__ for m in (torch, timm, transformers)}
        return {
            "weights": self.name,
            "revision": self.revision,
            "device": str(self.device),
            "precision": "bfloat16 autocast" if self.autocast else "float32",
            "versions": versions,
        }


def _first(batch: Tensor) -> Tensor:
    """Row 0 of a batch of one, float32, on the CPU, out of the graph."""
    return batch[0].detach().float().cpu()


def _by_name(names: list[str], row: Tensor) -> dict[str, float]:
    return {n: float(v) for n, v in zip(names, row, strict=True)}
