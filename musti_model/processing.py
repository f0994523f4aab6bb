"""A picture and a passage -> tensors, or a clear InputError. Saved and loaded with the weights."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tokenizers import Encoding
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from .config import MustiConfig
from .errors import Sentence
from .pictures import MAX_BYTES, MAX_PIXELS, open_image
from .reading import WORD, Passage, clean_passage, handed, is_counted, pieces_of
from .tokenizer import check_tokenizer, load_tokenizer

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MustiProcessor", "Passages", "Word", "clean_passage", "open_image"]

LONGEST_SHOWN = 60  # characters of a word in a notice


@dataclass(frozen=True)
class Word:
    """A word of the cleaned passage: characters [start, end), and the positions of its wordpieces in the token
    sequence."""

    text: str
    start: int
    end: int
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class Passages:
    """A batch of passages. input_ids, attention_mask: int64 [B, T]; texts: cleaned; words: only those that were read;
    notices: sentences; rests: of a text that was cut, what comes after the last word read, else ""."""

    input_ids: Tensor
    attention_mask: Tensor
    texts: list[str]
    words: list[list[Word]]
    notices: list[list[str]]
    rests: list[Passage]


def shortened(word: str) -> str:
    """A word as it stands in a notice."""
    return word if len(word) <= LONGEST_SHOWN else word[:LONGEST_SHOWN] + "…"


class MustiProcessor:
    """Pictures and passages -> tensors for a MustiModel of ``config``."""

    def __init__(self, config: MustiConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer

    def images(self, pictures: Iterable[Image.Image]) -> dict[str, Tensor]:
        """RGB pictures -> {branch: float32 [B, 3, S, S]}: the whole picture resized to a square, normalised for the
        branch.

        Pictures are taken one at a time, so that an iterator need not hold them all in full size.
        """
        return self.normalised([self.squares(p) for p in pictures])

    def squares(self, picture: Image.Image) -> dict[tuple[int, str], np.ndarray]:
        """One RGB picture -> {(S, resampling): uint8 [S, S, 3]}, a square for each size and resampling that a branch
        asks for."""
        kinds = {(b.image_size, b.resample) for b in self.config.branches}
        return {(s, how): np.asarray(picture.resize((s, s), Image.Resampling[how.upper()])) for s, how in kinds}

    def normalised(self, squares: list[dict[tuple[int, str], np.ndarray]]) -> dict[str, Tensor]:
        """Pictures as ``squares`` gives them -> {branch: float32 [B, 3, S, S]}."""
        result = {}
        for branch in self.config.branches:
            pixels = (
                torch.from_numpy(np.stack([s[branch.image_size, branch.resample] for s in squares]))
                .permute(0, 3, 1, 2)
                .float()
                / 255
            )
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (branch.mean, branch.std))
            result[branch.name] = (pixels - mean) / std
        return result

    def passages(self, texts: list[str]) -> Passages:
        """Texts -> token ids, T = ``text_length`` for padding "carry", else the longest of the batch. Raises
        InputError."""
        cleaned = [clean_passage(t) for t in texts]
        spans = [[m.span() for m in WORD.finditer(t)] for t in cleaned]
        # The tokenizer would walk all words only to cut off those beyond the grid; twice as many as it has places,
        # because some signs give no piece.
        most = 2 * self.config.text_length
        given = [handed(t, s[:most], self._alphabet) for t, s in zip(cleaned, spans, strict=True)]
        encoded = self.tokenizer(
            [text for text, _ in given],
            truncation=True,
            max_length=self.config.text_length,
            padding=self.config.tokenizer_padding,
            return_tensors="pt",
        )
        words = [
            self._words(t, s, places, e)
            for t, s, (_, places), e in zip(cleaned, spans, given, encoded.encodings or [], strict=True)
        ]
        notices = [self._notice(w, t, s) for w, t, s in zip(words, cleaned, spans, strict=True)]
        rests = [
            Passage(t[w[-1].end if w else 0 :] if n else "") for w, t, n in zip(words, cleaned, notices, strict=True)
        ]
        return Passages(encoded["input_ids"], encoded["attention_mask"], [*cleaned], words, notices, rests)

    @functools.cached_property
    def _alphabet(self) -> frozenset[str]:
        """The letters that the tokenizer knows."""
        return frozenset().union(*self.tokenizer.get_vocab())

    @staticmethod
    def _words(
        text: Passage, spans: list[tuple[int, int]], places: list[tuple[int, int]], encoding: Encoding
    ) -> list[Word]:
        """Words whose pieces were all read. spans, places: of the words in the text shown and in that handed to the
        tokenizer."""
        cut = [a for part in encoding.overflowing[:1] for a, b in part.offsets if b > a]
        whole = sum(1 for _, end in places if not cut or end <= cut[0])
        pieces = pieces_of(places[:whole], encoding.offsets)
        return [Word(text[a:b], a, b, p) for (a, b), p in zip(spans, pieces, strict=False) if p]

    @staticmethod
    def _notice(read: list[Word], text: Passage, spans: list[tuple[int, int]]) -> list[str]:
        kept = [w.text for w in read if is_counted(w.text)]
        total = sum(is_counted(text[a:b]) for a, b in spans) + text.words_after
        if len(kept) >= total:
            return []
        if not kept:
            return [
                Sentence(
                    "The passage is longer than the model reads: none of its {total} words was read whole.", total=total
                )
            ]
        return [
            Sentence(
                (
                    "The passage is longer than the model reads: the last {left} of its {total} words were left out; "
                    "the last word read is “{word}”."
                ),
                left=total - len(kept),
                total=total,
                word=shortened(kept[-1]),
            )
        ]

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer and processor.json (sizes, means, stds; for readers, the config has them too)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        branches = {
            b.name: {"size": b.image_size, "resample": b.resample, "mean": b.mean, "std": b.std}
            for b in self.config.branches
        }
        settings = {"branches": branches, "resize": "whole picture to a square", "text_length": self.config.text_length}
        (folder / "processor.json").write_text(json.dumps(settings, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: MustiConfig) -> "MustiProcessor":
        """From a folder that ``save_pretrained`` wrote; see ``load_tokenizer``.

        Raises: OSError for a missing file; ValueError for a tokenizer that is damaged or does not fit the model.
        """
        tokenizer = load_tokenizer(folder)
        check_tokenizer(tokenizer, config.vocabulary, config.text_length)
        return cls(config, tokenizer)
