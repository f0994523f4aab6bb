"""How well the text side reads objects' names, passage by passage; no picture takes part."""

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from musti_model.model import MustiModel

from .passages import Passage


@torch.inference_mode()
def reading_scores(model: MustiModel, tokenizer: PreTrainedTokenizerFast, passages: list[Passage], batch: int = 64) -> dict:
    """Names read right, and words taken for names.

    A name counts as read when the mean of its wordpieces' probabilities is highest for its object; doubtful names and names beyond the
    text's length are left out. A false alarm is a passage's object that no word of it may name.

    Returns: {"recall": 0..1 of the names, "precision": 0..1 of the objects read, "f1": of both, "languages": {tag: recall}}.
    """
    model.eval()
    objects = model.config.objects
    order = sorted(range(len(passages)), key=lambda i: len(passages[i].text))
    hits: dict[str, list[bool]] = {}
    read = wrong = 0
    for start in range(0, len(order), batch):
        rows = [passages[i] for i in order[start : start + batch]]
        enc = tokenizer([p.text for p in rows], truncation=True, padding=True, return_offsets_mapping=True, return_tensors="pt")
        with torch.autocast("cpu", torch.bfloat16):
            logits = model.name_text(enc["input_ids"], enc["attention_mask"])
        probabilities = logits.float().softmax(-1).numpy()
        for p, passage, offsets in zip(probabilities, rows, enc["offset_mapping"].numpy()):
            end = offsets[:, 1].max()
            for m in passage.mentions:
                if m.sure and m.end <= end:
                    inside = (offsets[:, 0] < m.end) & (offsets[:, 1] > m.start)
                    right = p[inside].mean(0).argmax() == objects.index(m.object)
                    hits.setdefault(passage.language, []).append(bool(right))
            real = offsets[:, 1] > offsets[:, 0]
            claimed = {objects[k] for k in p[real].argmax(-1) if k < len(objects)}
            read += len(claimed)
            wrong += len(claimed - passage.touched)
    recall = float(np.mean([h for row in hits.values() for h in row]))
    precision = 1 - wrong / max(1, read)
    return {
        "recall": recall,
        "precision": precision,
        "f1": 2 * recall * precision / max(1e-9, recall + precision),
        "languages": {tag: float(np.mean(row)) for tag, row in sorted(hits.items())},
    }
