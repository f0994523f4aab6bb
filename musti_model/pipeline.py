"""MustiPipeline: find weights, choose device and precision; predict, rank, explain."""

import math
import platform
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import timm
import torch
import transformers
from PIL import Image
from torch import Tensor

from .device import choose_device
from .errors import InputError, Sentence, WeightsError
from .explain import evidence_of, explained, measured
from .fusion import Words
from .image_tower import ImageTokens
from .languages import NAMES, is_latin, language_of
from .methods import BEST, QUICK
from .methods.gate_effect import gate_effects
from .methods.looks import look
from .methods.perturb import sparing
from .model import MustiModel, MustiOutput
from .processing import MustiProcessor, Passages, open_image, shortened
from .question import Picture, Question
from .reading import Passage
from .results import Explanation, Faithfulness, Prediction, Shut, is_doubtful
from .smells import smell_words
from .version import VERSION
from .weights import Weights, find_weights
from .what_if import Alteration, altered_logit

LARGE = 100_000_000  # parameters above which a CPU is too slow for the hundreds of forward passes of the best methods
SHOWN = 3  # best guesses at what a picture shows that are told
NAMED = 0.5  # probability from which a wordpiece counts as naming an object
WINDOWS = 3  # as long as the model reads, of what was cut off from a passage, that are looked at
LISTED = 3  # words in a notice
T = TypeVar("T")


# objects that a picture shows with their probabilities, and whether it most probably shows none
Seen = tuple[list[tuple[str, float]], bool]


class _Read(NamedTuple):
    """A batch of passages that were read: tokenised, as the gate takes them, the objects that each names, [(object,
    word)], and what is to be said of each."""

    texts: Passages
    words: Words
    named: list[list[tuple[str, str]]]
    notices: list[list[str]]


class MustiPipeline:
    """Pictures and passages in, answers and explanations out. One instance may serve many users: no result is kept on
    it."""

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
        for branch in model.branches.values():
            # convolutions are twice as fast on a CPU when channels lie side by side
            if not (branch.is_vit or branch.is_swin):
                branch.backbone.to(memory_format=torch.channels_last)
        self.processor, self.config = processor, model.config
        self.weights = weights or Weights(None, self.config.name, "unsaved")
        self.name, self.revision, self.card = self.weights.name, self.weights.revision, self.weights.card()

    @classmethod
    def from_pretrained(
        cls, source: str | Path | None = None, device: str | None = None, precision: str = "auto"
    ) -> "MustiPipeline":
        """Loads weights.

        Args:
            source: a folder, or a Hub id, optionally ``id@revision``. None: ``$MUSTI_MODEL`` if set, else the embedded
                starter.
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

    def ask(self, image: Picture, passage: str) -> Question:
        """A pair, opened, tokenised and encoded once; all that takes a picture and a passage takes it instead. Raises
        InputError."""
        with self._autocast():
            return Question.ask(self.model, self.processor, image, passage)

    def __call__(self, image: Picture | Question, passage: str | None = None) -> Prediction:
        """One pair. Raises InputError."""
        if not isinstance(image, Question):
            return self.predict([image], [_given(passage)])[0]
        with self._inference():
            return self._predictions(image.answered, image.encoded, self._named(image.passages, image.read))[0]

    def predict(self, images: Sequence[Picture], passages: Sequence[str], batch: int = 16) -> list[Prediction]:
        """Pairs (images[i], passages[i]), ``batch`` at once. Raises InputError, also for lists of unequal length, and
        ValueError for a batch below 1."""
        if len(images) != len(passages):
            raise InputError(
                "There are {pictures} pictures and {passages} passages; give as many of each.",
                pictures=len(images),
                passages=len(passages),
            )
        result = []
        for pictures, texts in zip(_parts(images, batch), _parts(passages, batch), strict=True):
            with self._inference():
                read = self._read(texts)
                result += self._answer(self._encode(open_image(i) for i in pictures), read)
        return result

    def rank(
        self, images: Picture | Sequence[Picture], passages: str | Sequence[str], batch: int = 16
    ) -> list[tuple[int, Prediction]]:
        """One picture against passages, or pictures against one passage: (index, Prediction), best first. The one side
        is encoded once (with a gate, the passage meets each picture before its encoder, which therefore runs for every
        pair).

        Raises: InputError; ValueError for a batch below 1.
        """
        answers: list[Prediction] = []
        with self._inference():
            if isinstance(images, (str, Path, Image.Image)) and not isinstance(passages, str):
                encoded = self._encode([open_image(images)])
                for some in _parts(passages, batch):
                    answers += self._answer(encoded, self._read(some))
            elif isinstance(passages, str) and not isinstance(images, (str, Path, Image.Image)):
                read = self._read([passages])
                for part in _parts(images, batch):
                    answers += self._answer(self._encode(open_image(i) for i in part), read)
            else:
                raise InputError(
                    "Rank takes one picture with a list of passages, or a list of pictures with one passage."
                )
        return sorted(enumerate(answers), key=lambda pair: -pair[1].probability)

    @property
    def spared(self) -> bool:
        """Whether of these many passes only the more telling ones are made."""
        return sparing(self.model)

    @property
    def many_passes(self) -> bool:
        """Whether hundreds of forward passes for one explanation are bearable: on an accelerator, or for a small
        model."""
        return self.device.type != "cpu" or sum(p.numel() for p in self.model.parameters()) <= LARGE

    def explain(self, image: Picture | Question, passage: str | None = None, evidence: bool = True) -> Explanation:
        """One pair with gate, attention maps and Grad-CAM; and with evidence and the gate's effect, which take many
        more forward passes, unless ``evidence`` is False. A large model on a CPU gets evidence from gradients
        (``Evidence.methods`` says which). Raises InputError."""
        started = time.perf_counter()
        question = self._question(image, passage)
        with self._autocast():
            looked = look(question)
        with self._inference():
            prediction = self._predictions(
                looked.output, question.encoded, self._named(question.passages, question.read)
            )[0]
            shut = self._shut(question)
        result = replace(explained(looked, prediction, self._settings()), shut=shut)
        if evidence:
            with torch.inference_mode(False), self._autocast():
                found = evidence_of(question, BEST if self.many_passes else QUICK)
                effects = gate_effects(question)
            result = replace(
                result, evidence=replace(found, missing=self._missing(question, prediction)), gate_effect=effects
            )
        result.settings["seconds"] = round(time.perf_counter() - started, 3)
        return result

    def faithfulness(
        self, image: Picture | Question, passage: str | None = None, explanation: Explanation | None = None
    ) -> dict[str, Faithfulness]:
        """How faithful each explanation of this very pair is, all measured by the whole model's answer; by name as in
        ``explain.shown``.

        Raises: InputError, also for an explanation of another picture or passage, or without evidence.
        """
        if explanation is None:
            raise InputError("There is no explanation to measure; explain the pair first.")
        question = self._question(image, passage)
        with torch.inference_mode(False), torch.no_grad(), self._autocast():
            return measured(question, explanation)

    def what_if(
        self, image: Picture | Question, passage: str | None = None, alteration: Alteration = Alteration()
    ) -> float:
        """Probability of YES of an altered pair. Raises InputError."""
        question = self._question(image, passage)
        with torch.inference_mode(False), self._autocast():
            return self._probability(altered_logit(question, alteration))

    # Inside -----------------------------------------------------------------------------------------------------------

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, self.autocast or torch.bfloat16, enabled=self.autocast is not None)

    @contextmanager
    def _inference(self) -> Iterator[None]:
        with torch.inference_mode(), self._autocast():
            yield

    def _question(self, image: Picture | Question, passage: str | None) -> Question:
        return image if isinstance(image, Question) else self.ask(image, _given(passage))

    def _shut(self, question: Question) -> Shut | None:
        """The answer with the gate shut."""
        if not self.model.fusion.gated:
            return None
        output = self.model.match_words(question.encoded, question.read, gate="shut")
        return Shut(
            self._probability(float(output.logits[0])),
            dict(zip(self.model.branches, output.votes[0].tolist(), strict=True)),
        )

    def _missing(self, question: Question, prediction: Prediction) -> list[tuple[str, float]]:
        """Why NO: what the passage would have had to name, at the front, because a long passage's end is not read."""
        if prediction.label == "YES" or not prediction.objects_in_picture:
            return []
        names = [name for name, _ in prediction.objects_in_picture]
        text = question.passages.texts[0]
        with self._inference():
            output = self.model.match_words(
                question.encoded,
                self._words(self.processor.passages([f"{name.replace('_', ' ')}. {text}" for name in names])),
            )
        answers = [self._probability(float(logit)) for logit in output.logits]
        return sorted(zip(names, answers, strict=True), key=lambda pair: -pair[1])

    def _words(self, texts: Passages) -> Words:
        return self.model.words(texts.input_ids.to(self.device), texts.attention_mask.to(self.device))

    def _read(self, passages: Sequence[str]) -> _Read:
        texts = self.processor.passages([*passages])
        return self._named(texts, self._words(texts))

    def _named(self, texts: Passages, words: Words) -> _Read:
        """With what each passage names, and what is to be said of it."""
        rows = zip(texts.notices, texts.rests, texts.texts, strict=True)
        notices = [[*told, *self._left_out(rest), *self._foreign(text)] for told, rest, text in rows]
        return _Read(texts, words, self._names(texts, words), notices)

    def _names(self, texts: Passages, words: Words) -> list[list[tuple[str, str]]]:
        """The objects named by each passage, word by word, without the picture; none without a naming head."""
        if not self.objects:
            return [[] for _ in texts.texts]
        named = self.model.name_words(words).float().softmax(-1).cpu()
        passages = []
        for row, read in enumerate(texts.words):
            best = [named[row, list(w.pieces)].mean(0)[:-1].max(-1) for w in read]
            naming = [at for at, b in enumerate(best) if b.values >= NAMED and not _outdone(best, at)]
            passages.append([(self.objects[int(best[at].indices)], read[at].text) for at in naming])
        return passages

    def _left_out(self, rest: Passage) -> list[str]:
        """What is to be said of the part of a passage that was cut off, as far as that was kept (``READ_CHARACTERS``):
        that it names something known, or speaks of a smell."""
        things, smells = self._named_after(rest), smell_words(rest)
        told = [
            Sentence(
                (
                    "The part that was left out names {things}, which the model knows, but the answer does not count "
                    "it. Ask that part by itself."
                ),
                things=_listed(things),
            ),
            Sentence(
                (
                    "The part that was left out speaks of a smell ({words}), but the answer does not count it. Ask "
                    "that part by itself."
                ),
                words=_listed(smells),
            ),
        ]
        return [sentence for sentence, found in zip(told, (things, smells), strict=True) if found]

    def _named_after(self, rest: Passage) -> list[str]:
        """Words that name objects in what was cut off, read as far as the first window that has some, and no further
        than ``WINDOWS``."""
        for _ in range(WINDOWS if self.objects else 0):
            if not rest:
                break
            texts = self.processor.passages([rest])
            named = self._names(texts, self._words(texts))[0]
            if named or not texts.words[0]:  # a word longer than a window ends it, too
                return [word for _, word in named]
            rest = texts.rests[0]
        return []

    @cached_property
    def _measured(self) -> frozenset[str]:
        """Tags of the languages that the weights' card has test scores of; empty for a card without, or one that makes
        no sense (others may have written it)."""
        test = self.card.get("test")
        languages = test.get("languages") if isinstance(test, dict) else None
        return frozenset(languages if isinstance(languages, dict) else ())

    def _foreign(self, text: str) -> list[str]:
        """What is to be said of a passage in a language that these weights were not measured in."""
        if not self._measured:
            return []
        if not is_latin(text):
            told = Sentence(
                "The passage is not in Latin letters; these weights were not measured on such passages, so the "
                "answer may well be wrong."
            )
            # another language measured may be one of other letters
            return [told] if self._measured <= NAMES.keys() else []
        tag = language_of(text)
        if tag is None or tag in self._measured:
            return []
        told = Sentence(
            (
                "The passage seems to be in {language}; these weights were not measured on such passages, so the "
                "answer may well be wrong."
            ),
            language=NAMES[tag],
        )
        return [told]

    def _encode(self, pictures: Iterable[Image.Image]) -> dict[str, ImageTokens]:
        images = self.processor.images(pictures)
        return self.model.encode_images({n: t.to(self.device) for n, t in images.items()})

    def _answer(self, encoded: dict[str, ImageTokens], read: _Read) -> list[Prediction]:
        """Pairs row by row; one picture or one passage stands for all rows of the other side."""
        return self._predictions(self.model.match_words(encoded, read.words), encoded, read)

    def _predictions(self, output: MustiOutput, encoded: dict[str, ImageTokens], read: _Read) -> list[Prediction]:
        seen = self._seen(encoded)
        return [self._prediction(output, row, seen, read) for row in range(len(output.logits))]

    def _seen(self, encoded: dict[str, ImageTokens]) -> list[Seen]:
        """For each picture the best three objects that it shows, mean of the branches, and whether it most probably
        shows nothing known; empty without a naming head."""
        if not self.objects:
            return [([], False) for _ in next(iter(encoded.values())).tokens]
        named = torch.stack([self.model.name_picture(t).softmax(-1) for t in encoded.values()]).mean(0).float().cpu()
        best = named[:, :-1].topk(min(SHOWN, len(self.objects)))
        return [
            ([(self.objects[i], round(p, 4)) for p, i in zip(values, indices, strict=True)], nothing)
            for values, indices, nothing in zip(
                best.values.tolist(),
                best.indices.tolist(),
                (named.argmax(-1) == len(self.objects)).tolist(),
                strict=True,
            )
        ]

    def _probability(self, logit: float) -> float:
        # without an overflow
        return float(torch.tensor(logit / self.config.temperature, dtype=torch.float64).sigmoid())

    def _prediction(self, output: MustiOutput, row: int, all_seen: list[Seen], passages: _Read) -> Prediction:
        names = [b.name for b in self.config.branches]
        logit = float(output.logits[row])
        if not math.isfinite(logit):
            raise WeightsError(
                "The weights {name} give no number for this pair; they are damaged or were trained badly.",
                name=self.name,
            )
        probability = self._probability(logit)
        (seen, nothing), read, notices = _row(all_seen, row), _row(passages.named, row), [*_row(passages.notices, row)]
        unread = bool(self.objects) and not read
        if unread:
            notices.append(
                Sentence(
                    (
                        "The model found none of the {count} smell objects it knows in this passage, so its answer "
                        "says little."
                    ),
                    count=len(self.objects),
                )
            )
        if nothing:
            notices.append(
                Sentence("The model recognises nothing it knows in this picture, so its answer says little.")
            )
        elif is_doubtful(seen):
            guess, share = seen[0]
            notices.append(
                Sentence(
                    "The model is not sure what the picture shows: its best guess, {object}, has {share:.0%}.",
                    object=Sentence(guess),
                    share=share,
                )
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
            unsure=unread or nothing or (is_doubtful(seen) and not self._settled(probability, seen, read)),
        )

    def _settled(self, probability: float, seen: list[tuple[str, float]], read: list[tuple[str, str]]) -> bool:
        """Whether the passage settles what a doubtful picture shows: a clear YES, and it names one of the guesses. See
        ``Prediction``."""
        return probability >= (1 + self.config.threshold) / 2 and not {name for name, _ in seen}.isdisjoint(
            name for name, _ in read
        )

    def _settings(self) -> dict[str, Any]:
        versions = {"python": platform.python_version(), "musti_model": VERSION}
        versions |= {m.__name__: m.__version__ for m in (torch, timm, transformers)}
        return {
            "weights": self.name,
            "revision": self.revision,
            "device": str(self.device),
            "precision": "bfloat16 autocast" if self.autocast else "float32",
            "versions": versions,
        }


def _outdone(best: list[Any], at: int) -> bool:
    """Whether a word beside it names the same, and more surely: read in its context an adjective may name what its noun
    names ("old horse"). best: of each word, values and indices of the best guess."""
    beside = best[max(0, at - 1) : at] + best[at + 1 : at + 2]
    return any(b.indices == best[at].indices and b.values > best[at].values for b in beside)


def _listed(words: list[str]) -> str:
    """The first few words, none twice."""
    different: dict[str, str] = {}
    for word in words:
        different.setdefault(word.casefold(), shortened(word))
    return ", ".join(list(different.values())[:LISTED]) + (" …" if len(different) > LISTED else "")


def _given(passage: str | None) -> str:
    if passage is None:
        raise InputError("The passage must be text.")
    return passage


def _parts(values: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    if size < 1:
        raise ValueError(f"batch is at least 1, not {size}.")
    values = list(values)
    return (values[start : start + size] for start in range(0, len(values), size))


def _row(side: Sequence[T], row: int) -> T:
    """Of a pair's picture or passage; one alone stands for all rows."""
    return side[row if len(side) > 1 else 0]


def _by_name(names: list[str], row: Tensor) -> dict[str, float]:
    return {n: float(v) for n, v in zip(names, row, strict=True)}
