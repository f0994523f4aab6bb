"""How well the text side reads objects' names, passage by passage; no picture takes part."""

from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score
from transformers import PreTrainedTokenizerBase

from musti_model.device import autocast
from musti_model.model import MustiModel

from .passages import Passage


@torch.inference_mode()
def reading_scores(
    model: MustiModel, tokenizer: PreTrainedTokenizerBase, passages: list[Passage], batch: int = 64
) -> dict[str, Any]:
    """Names read right, and words taken for names.

    Returns: {"recall": share of the sure names within the text's length whose wordpieces are, on average, most probably
    of their object; "average_precision": of ranking all (passage, object) by the object's most probable wordpiece,
    doubtful ones left out; "precision", "f1": of the objects that some wordpiece most probably names; "languages":
    {tag: recall}}. All 0..1.
    """
    device = next(model.parameters()).device
    model.eval()
    objects = model.config.objects
    order = sorted(range(len(passages)), key=lambda i: len(passages[i].text))
    hits: dict[str, list[bool]] = {}
    strength, claimed, named, doubtful = [], [], [], []
    for start in range(0, len(order), batch):
        rows = [passages[i] for i in order[start : start + batch]]
        enc = tokenizer(
            [p.text for p in rows],
            truncation=True,
            padding=model.config.tokenizer_padding,
            return_offsets_mapping=True,
            return_tensors="pt",
        )
        with autocast(device):
            logits = model.name_text(enc["input_ids"].to(device), enc["attention_mask"].to(device))
        for p, passage, offsets in zip(logits.float().softmax(-1).cpu().numpy(), rows, enc["offset_mapping"].numpy()):
            real = offsets[:, 1] > offsets[:, 0]
            within = [m for m in passage.mentions if m.end <= offsets[:, 1].max()]
            for m in within:
                inside = (offsets[:, 0] < m.end) & (offsets[:, 1] > m.start)
                if m.sure:
                    hits.setdefault(passage.language, []).append(
                        bool(p[inside].mean(0).argmax() == objects.index(m.object))
                    )
            sure = {m.object for m in within if m.sure}
            strength.append(p[real, :-1].max(0))
            claimed.append(np.isin(np.arange(len(objects)), p[real].argmax(-1)))
            named.append([o in sure for o in objects])
            doubtful.append([o in passage.touched and o not in sure for o in objects])
    keep = ~np.array(doubtful)
    truth, claims = np.array(named)[keep], np.array(claimed)[keep]
    precision = float(truth[claims].mean()) if claims.any() else 1.0
    found = float(claims[truth].mean())
    return {
        "recall": float(np.mean([h for row in hits.values() for h in row])),
        "average_precision": float(average_precision_score(truth, np.array(strength)[keep])),
        "precision": precision,
        "f1": 2 * found * precision / max(1e-9, found + precision),
        "languages": {tag: float(np.mean(row)) for tag, row in sorted(hits.items())},
    }
