"""Detector + BERT: what an object detector names in the picture, joined into a sentence and read with the passage by
BERT.

After Shao et al. (MediaEval 2022), who used YOLOv5; here any object detection checkpoint of ``transformers``.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection

from musti_model.config import BERT_MULTILINGUAL
from musti_model.processing import open_image
from musti_model.text_tower import TextTower

Namer = Callable[[Sequence[Image.Image]], list[list[str]]]


@dataclass(frozen=True)
class DetectorConfig:
    """detector: id or folder of a detection checkpoint; confidence: 0..1, from which a found object counts; text: of
    TextTower; text_length: wordpieces of names and passage together; threshold, temperature: as in MustiConfig."""

    name: str = "detector-bert"
    detector: str = "hustvl/yolos-small"
    confidence: float = 0.5
    text: dict[str, Any] = dataclasses.field(default_factory=lambda: dict(BERT_MULTILINGUAL))
    text_length: int = 256
    threshold: float = 0.5
    temperature: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as saved in config.json."""
        return dataclasses.asdict(self)


class DetectorBert(nn.Module):
    """BERT over "names [SEP] passage"; one logit from the pooled first token."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.text = TextTower(config.text)
        self.classifier = nn.Linear(self.text.hidden, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """int [B, T] each -> logits [B]."""
        states = self.text.encode(self.text.embed(input_ids, token_type_ids), attention_mask)
        return self.classifier(self.text.pool(states)).squeeze(-1)


def load_namer(checkpoint: str, confidence: float, device: str | torch.device = "cpu") -> Namer:
    """Pictures -> the names of what the detector finds in each, most confident first, each once. Raises OSError when it
    cannot be had."""
    processor = AutoImageProcessor.from_pretrained(checkpoint)
    model = AutoModelForObjectDetection.from_pretrained(checkpoint).to(device).eval()

    @torch.inference_mode()
    def name(pictures: Sequence[Image.Image]) -> list[list[str]]:
        output = model(**processor(images=list(pictures), return_tensors="pt").to(device))
        found = processor.post_process_object_detection(output, threshold=confidence)
        names = []
        for one in found:
            order = one["scores"].argsort(descending=True)
            names.append(list(dict.fromkeys(model.config.id2label[int(one["labels"][i])] for i in order)))
        return names

    return name


class NameBook:
    """Names by picture, found once. kept: JSON file they are read from; write: also keep new ones there. A picture goes
    by its content."""

    def __init__(self, namer: Callable[[], Namer], kept: Path | None = None, write: bool = False) -> None:
        self._make, self.kept, self.write = namer, kept, write
        self._namer: Namer | None = None
        self.names: dict[str, list[str]] = {}
        self._keys: dict[Path, str] = {}
        if kept and kept.exists():
            with suppress(ValueError):  # damaged: what it held is found again
                self.names = json.loads(kept.read_text())

    def __call__(self, file: Path) -> list[str]:
        """The names in a picture. Raises InputError."""
        if file not in self._keys:
            picture = open_image(file)  # its errors are sentences
            self._keys[file] = key = hashlib.sha256(file.read_bytes()).hexdigest()[:24]
            if key not in self.names:
                self._namer = self._namer or self._make()
                self.names[key] = self._namer([picture])[0]
                if self.write and self.kept:
                    self.save(self.kept)
        return self.names[self._keys[file]]

    def save(self, path: Path) -> None:
        """Atomic."""
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(self.names, indent=0) + "\n")
        os.replace(temporary, path)
