"""Regions by contribution: what each place would vote by itself."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..question import Question
from .contract import Method


@torch.no_grad()
def run(question: Question) -> dict[str, Tensor]:
    """What each place of a branch would vote if the whole picture were like it, less what it takes to say YES: above 0
    speaks for, below 0 against. -> {branch: [rows, columns]}, logit units, weighted so that the branch's places share
    its part of the logit.

    The image vector is a weighted sum of the tokens (``MustiModel.image_vector``), so its dot product with the text is
    one too.
    """
    model, result = question.model, {}
    slopes, count = model.vote_slopes(), len(question.encoded)
    output = question.answered
    needed = (model.config.temperature * logit_of(model.config.threshold) - output.vote_bias) / count
    for k, (name, image) in enumerate(question.encoded.items()):
        if image.grid is None:
            continue
        text = F.normalize(output.text_vectors[0, k].float(), dim=-1)
        cosines = F.normalize(image.tokens[0, 1:].float(), dim=-1) @ text
        result[name] = ((slopes[k] * cosines - needed) / cosines.numel()).reshape(image.grid).float().cpu()
    return result


def logit_of(probability: float) -> float:
    """Finite also for a threshold of 0 or 1, which only says that every pair, or none, is a YES."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


CONTRIBUTION = Method("contribution", "regions", "one pass", "logit", True, run)
