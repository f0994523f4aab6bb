"""Detector + BERT: what an object detector names in the picture, joined into a sentence and read with the passage by BERT.

After Shao et al. (MediaEval 2022), who used YOLOv5; here any object detection checkpoint of ``transformers``.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForObjectDetection, BertConfig, BertModel

from musti_model.config import BERT_MULTILINGUAL

Namer = Callable[[Sequence[Image.Image]], list[list[str]]]


@dataclass(frozen=True)
class DetectorConfig:
    """detector: id or folder of a detection checkpoint; confidence: 0..1, from which a found object counts; text: of BertConfig;
    text_length: wordpieces of names and passage together; threshold, temperature: as in MustiConfig."""

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
        bert = BertModel(BertConfig(**config.text, attn_implementation="sdpa"))
        self.text_embedding, self.text_encoder, self.pooler = bert.embeddings, bert.encoder, bert.pooler
        self.classifier = nn.Linear(bert.config.hidden_size, 1)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        """int [B, T] each -> logits [B]."""
        mask = (1 - attention_mask[:, None, None, :]) * torch.finfo(torch.bfloat16).min
        states = self.text_embedding(input_ids=input_ids, token_type_ids=token_type_ids)
        states = self.text_encoder(states, attention_mask=mask.to(states.dtype)).last_hidden_state
        return self.classifier(self.pooler(states)).squeeze(-1)


def load_namer(checkpoint: str, confidence: float, device: str | torch.device = "cpu") -> Namer:
    """Pictures -> the names of what the detector finds in each, most confident first, each once. Raises OSError when it cannot be had."""
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
    """Names by picture, found once and kept in a JSON file."""

    def __init__(self, namer: Callable[[], Namer], path: Path | None = None) -> None:
        self._make, self._namer, self.path = namer, None, path
        self.names: dict[str, list[str]] = json.loads(path.read_text()) if path and path.exists() else {}

    def __call__(self, key: str, picture: Callable[[], Image.Image]) -> list[str]:
        """The names in the picture called ``key``, which is opened only if it is new."""
        if key not in self.names:
            self._namer = self._namer or self._make()
            self.names[key] = self._namer([picture()])[0]
            if self.path:
                self.path.write_text(json.dumps(self.names, indent=0) + "\n")
        return self.names[key]
