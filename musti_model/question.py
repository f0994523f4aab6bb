"""A picture and a passage: opened, tokenised and encoded once, for all that is asked about them."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .attention import vit_attention
from .frames import shrunk
from .fusion import Words
from .image_tower import ImageTokens
from .model import MustiModel, MustiOutput
from .processing import MustiProcessor, Passages, open_image

T = TypeVar("T")
Picture = str | Path | Image.Image


@dataclass(frozen=True, eq=False)
class Question:
    """One pair as the model takes it.

    picture: RGB, upright; passages: the one passage, cleaned and tokenised; images: {branch: [1, 3, S, S]}; encoded:
    {branch: their tokens}, float32; attention: {ViT branch: function -> [1, layers, heads, N, N]}; read: the passage as
    the gate takes it, one row; made: what methods keep for each other. No tensor is part of a graph, and none is
    changed.
    """

    model: MustiModel
    picture: Image.Image
    passages: Passages
    images: dict[str, Tensor]
    encoded: dict[str, ImageTokens]
    attention: dict[str, Callable[[], Tensor]]
    read: Words
    made: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def ask(cls, model: MustiModel, processor: MustiProcessor, image: Picture, passage: str) -> "Question":
        """Opens the picture, reads the passage, encodes both on the model's device. Raises InputError."""
        device = model.final_projection.weight.device
        texts = processor.passages([passage])
        picture = open_image(image)
        images = {n: t.to(device) for n, t in processor.images([picture]).items()}
        # Tensors made in inference mode could take no part in a graph later.
        with torch.inference_mode(False), torch.no_grad(), vit_attention(model.vits) as attention:
            encoded = {n: t.float() for n, t in model.encode_images(images).items()}
            read = model.words(texts.input_ids.to(device), texts.attention_mask.to(device))
        return cls(model, picture, texts, images, encoded, attention, read)

    def fit(self, side: int) -> "Question":
        """The same question, encoded from the whole picture, that keeps no more than a copy of it that is at most
        ``side`` px wide and high: what a page shows of it, whatever was uploaded. Its explanations are on that copy,
        and its ``fingerprint`` is of that copy."""
        return replace(self, picture=shrunk(self.picture, side))

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What ``make`` gives, made once for this question."""
        if name not in self.made:
            self.made[name] = make()
        kept: T = self.made[name]
        return kept

    @property
    def input_ids(self) -> Tensor:
        """int [1, T]."""
        return self.passages.input_ids.to(self.read.mask.device)

    @property
    def mask(self) -> Tensor:
        """0/1 [1, T]."""
        return self.read.mask

    @property
    def pieces(self) -> list[tuple[int, ...]]:
        """Positions of the wordpieces of each word read."""
        return [w.pieces for w in self.passages.words[0]]

    @cached_property
    def length(self) -> int:
        """Wordpieces that are not padding."""
        return int(self.passages.attention_mask.sum())

    @cached_property
    def rest(self) -> list[int]:
        """Positions that are no word read, padding left out: special tokens, and the pieces of a word that was cut
        off."""
        words = {p for pieces in self.pieces for p in pieces}
        return [p for p in range(self.length) if p not in words]

    @cached_property
    def answered(self) -> MustiOutput:
        """The unaltered question's output, out of the graph, in the precision of whoever asks first."""
        with torch.inference_mode(False), torch.no_grad():
            return self.model.match_words(self.encoded, self.read)

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of the picture's pixels and the cleaned passage."""
        digest = hashlib.sha256(f"{self.picture.size} {self.passages.texts[0]}".encode())
        digest.update(self.picture.tobytes())
        return digest.hexdigest()[:16]

    def probability(self, votes: Tensor) -> np.ndarray:
        """Votes [M, branches] -> calibrated probabilities of YES [M]."""
        with torch.no_grad():
            logits = (votes.sum(1) + self.model.vote_constant()).float().cpu().numpy().astype(float)
        return 1 / (1 + np.exp(-logits / self.model.config.temperature))
