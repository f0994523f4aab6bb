"""A picture and a passage -> tensors, or a clear InputError. Saved and loaded with the weights."""

import json
import re
import unicodedata
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from .config import MustiConfig
from .errors import InputError, Sentence

MAX_PIXELS = 50_000_000
MAX_BYTES = 30_000_000
MAX_CHARACTERS = 1_000_000  # of a passage at all
READ_CHARACTERS = 20_000  # handed to the tokenizer: more than any text grid holds
# A word that OCR found broken at a line's end: letter, hyphen (or its old sign), line break, small letter.
_BROKEN = re.compile(r"(?<=[^\W\d_])[-¬⸗\u2010] *\r?\n *(?=[^\W\d_A-Z])")
_LIGATURES = {0xFB00: "ff", 0xFB01: "fi", 0xFB02: "fl", 0xFB03: "ffi", 0xFB04: "ffl", 0xFB05: "ſt", 0xFB06: "st"}
# A word is a run of letters or digits with inner apostrophes and hyphens, or one other visible character.
WORD = re.compile(r"[^\W_]+(?:['’\-][^\W_]+)*|\S", re.UNICODE)


def open_image(source: str | Path | BinaryIO | Image.Image, largest: int | None = None) -> Image.Image:
    """Opens any picture that Pillow reads, as people see it: RGB, upright.

    EXIF rotation applied, alpha over white, palette, CMYK, 16-bit and grey converted, first frame of an animation.

    Args:
        source: a file's name, an open binary file (as io.BytesIO), or a PIL image.
        largest: px that the longest side has at most, larger pictures are shrunk; None: as it is.

    Raises: InputError for a missing, empty, corrupt or truncated file, one that is no picture, or one over 50 megapixels or 30 MB.
    """
    picture = _decoded(_checked(source))
    if largest is not None and max(picture.size) > largest:
        picture.thumbnail((largest, largest), Image.Resampling.BICUBIC)
    return picture


def _checked(source: str | Path | BinaryIO | Image.Image) -> Path | BinaryIO | Image.Image:
    if isinstance(source, Image.Image) or (hasattr(source, "read") and hasattr(source, "seek")):
        return source
    if not isinstance(source, (str, Path)):
        raise InputError("A picture is a file name or a PIL image, not {kind}.", kind=type(source).__name__)
    path = Path(source)
    try:
        size = path.stat().st_size if path.is_file() else -1
    except (OSError, ValueError):  # a name too long for a file, or with a zero in it
        size = -1
    if size < 0:
        raise InputError("There is no picture file {name!r}; check the name.", name=path.name[:60])
    if size == 0:
        raise InputError("The picture file is empty; choose another one.")
    if size > MAX_BYTES:
        raise InputError("The picture file has {size:.0f} MB; the limit is {limit:.0f} MB.", size=size / 1e6, limit=MAX_BYTES / 1e6)
    return path


def _decoded(source: Path | BinaryIO | Image.Image) -> Image.Image:
    """A file or an open picture, upright and RGB; all that Pillow may raise becomes an InputError."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            if isinstance(source, Image.Image):
                return _upright_rgb(source)
            with Image.open(source) as image:
                return _upright_rgb(image)
        except InputError:
            raise
        except Image.DecompressionBombError as error:
            raise _too_large() from error
        except Exception as error:  # Pillow's decoders raise almost anything on broken files
            raise InputError("This file is not a picture we can read, or it is damaged; try a JPEG or PNG.") from error


def _too_large() -> InputError:
    return InputError("The picture is too large; the limit is {limit} megapixels.", limit=MAX_PIXELS // 1_000_000)


def _upright_rgb(image: Image.Image) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise _too_large()
    if min(image.size) < 1:
        raise InputError("The picture has no pixels; choose another one.")
    if getattr(image, "is_animated", False):
        image.seek(0)
    try:
        image.load()
    except Exception as error:
        raise InputError("The picture is damaged or cut off; try another copy of it.") from error
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _to_8_bit(image)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _to_8_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by its nominal range, 32-bit and float by what their values suggest; Pillow's own convert clips at 255."""
    values = np.asarray(image, dtype=np.float64)
    if image.mode.startswith("I;16"):
        top = 65535.0
    else:
        top = 1.0 if image.mode == "F" and values.max() <= 1 else 255.0 if values.max() <= 255 else 65535.0
    return Image.fromarray((np.clip(values / top, 0, 1) * 255).astype(np.uint8))


def clean_passage(text: str) -> str:
    """The passage as it is read and shown: NFC; printers' ligatures (ﬁ) spelled out; words broken at a line's end joined; invisible signs (soft hyphens, zero-width spaces)
    taken out; other control characters but the line break turned to spaces; ends stripped.

    Raises: InputError for something that is not text, is empty, holds no letter, or has over a million characters.
    """
    if not isinstance(text, str):
        raise InputError("The passage must be text.")
    if len(text) > MAX_CHARACTERS:
        raise InputError("The passage has {count} characters; the limit is {limit}.", count=len(text), limit=MAX_CHARACTERS)
    text = "".join(c for c in text if unicodedata.category(c) != "Cf")
    text = _BROKEN.sub("", unicodedata.normalize("NFC", text).translate(_LIGATURES)).replace("\r\n", "\n")
    text = "".join(" " if c != "\n" and unicodedata.category(c) in ("Cc", "Cs") else c for c in text).strip()
    if not text:
        raise InputError("The passage is empty; paste or type a few sentences.")
    if not any(c.isalpha() for c in text):
        raise InputError("The passage holds no words, only signs or digits; paste a text.")
    return text


@dataclass(frozen=True)
class Word:
    """A word of the cleaned passage: characters [start, end), and the positions of its wordpieces in the token sequence."""

    text: str
    start: int
    end: int
    pieces: tuple[int, ...]


@dataclass(frozen=True)
class Passages:
    """A batch of passages. input_ids, attention_mask: int64 [B, T]; texts: cleaned; words: only those that were read; notices: sentences."""

    input_ids: Tensor
    attention_mask: Tensor
    texts: list[str]
    words: list[list[Word]]
    notices: list[list[str]]


class MustiProcessor:
    """Pictures and passages -> tensors for a MustiModel of ``config``."""

    def __init__(self, config: MustiConfig, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.tokenizer = config, tokenizer

    def images(self, pictures: Iterable[Image.Image]) -> dict[str, Tensor]:
        """RGB pictures -> {branch: float32 [B, 3, S, S]}: the whole picture resized to a square, normalised for the branch.

        Pictures are taken one at a time, so that an iterator need not hold them all in full size.
        """
        return self.normalised([self.squares(p) for p in pictures])

    def squares(self, picture: Image.Image) -> dict[tuple[int, str], np.ndarray]:
        """One RGB picture -> {(S, resampling): uint8 [S, S, 3]}, a square for each size and resampling that a branch asks for."""
        kinds = {(b.image_size, b.resample) for b in self.config.branches}
        return {(s, how): np.asarray(picture.resize((s, s), Image.Resampling[how.upper()])) for s, how in kinds}

    def normalised(self, squares: list[dict[tuple[int, str], np.ndarray]]) -> dict[str, Tensor]:
        """Pictures as ``squares`` gives them -> {branch: float32 [B, 3, S, S]}."""
        result = {}
        for branch in self.config.branches:
            pixels = torch.from_numpy(np.stack([s[branch.image_size, branch.resample] for s in squares])).permute(0, 3, 1, 2).float() / 255
            mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (branch.mean, branch.std))
            result[branch.name] = (pixels - mean) / std
        return result

    def passages(self, texts: list[str]) -> Passages:
        """Texts -> token ids, T = ``text_length`` for padding "carry", else the longest of the batch. Raises InputError."""
        texts = [clean_passage(t) for t in texts]
        encoded = self.tokenizer(
            [t[:READ_CHARACTERS] for t in texts],
            truncation=True,
            max_length=self.config.text_length,
            padding=self.config.tokenizer_padding,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        words, notices = [], []
        for text, offsets in zip(texts, encoded["offset_mapping"].tolist(), strict=True):
            read, total = self._words(text, offsets)
            words.append(read)
            notices.append(self._notice(read, total))
        return Passages(encoded["input_ids"], encoded["attention_mask"], texts, words, notices)

    @staticmethod
    def _words(text: str, offsets: list[list[int]]) -> tuple[list[Word], int]:
        """Words whose pieces were all read, and the number of all words, by character offsets."""
        spans = [(m.start(), m.end()) for m in WORD.finditer(text)]
        last = max((end for _, end in offsets), default=0)
        words = []
        for start, end in spans:
            pieces = tuple(i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start)
            if pieces and end <= last:
                words.append(Word(text[start:end], start, end, pieces))
        real = sum(1 for a, b in spans if any(c.isalnum() for c in text[a:b]))
        return words, real

    @staticmethod
    def _notice(read: list[Word], total: int) -> list[str]:
        kept = [w for w in read if any(c.isalnum() for c in w.text)]
        if len(kept) >= total:
            return []
        if not kept:
            return [Sentence("The passage is longer than the model reads: none of its {total} words was read whole.", total=total)]
        return [
            Sentence(
                "The passage is longer than the model reads: its last {left} of {total} words were left out; the last word read is “{word}”.",
                left=total - len(kept), total=total, word=kept[-1].text,
            )
        ]  # fmt: skip

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer and processor.json (sizes, means, stds; for readers, the config has them too)."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save_pretrained(folder)
        branches = {b.name: {"size": b.image_size, "resample": b.resample, "mean": b.mean, "std": b.std} for b in self.config.branches}
        settings = {"branches": branches, "resize": "whole picture to a square", "text_length": self.config.text_length}
        (folder / "processor.json").write_text(json.dumps(settings, indent=1) + "\n")

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: MustiConfig) -> "MustiProcessor":
        """From a folder that ``save_pretrained`` wrote. Raises OSError when the tokenizer is missing."""
        return cls(config, AutoTokenizer.from_pretrained(folder, local_files_only=True))
