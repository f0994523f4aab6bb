"""Altered questions: words cut out of the passage, regions hidden in the picture. Only what changes is encoded anew: a
cut passage needs no image encoder, a picture with hidden regions no second reading of the passage."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..fusion import Words
from ..model import MustiModel
from ..question import Question

CHUNK = 32  # altered inputs run at once
# parameters from which a CPU has no time for every alteration: fewer are made, and some answers estimated
SPARING = 15_000_000
CELLS = 8  # rows and columns of the picture that are blanked out


def sparing(model: MustiModel) -> bool:
    """Whether alterations are to be few: a model of some size on a CPU."""
    return next(model.parameters()).device.type == "cpu" and sum(p.numel() for p in model.parameters()) > SPARING


def cut(question: Question, kept: list[list[int]]) -> Words:
    """The passage cut down to the wordpieces at the given positions, padded as the model wants it and read. ->
    len(kept) rows."""
    model = question.model
    carry = model.config.padding == "carry"
    width = question.mask.shape[1] if carry else max(len(row) for row in kept)
    ids = question.input_ids.new_full((len(kept), width), model.text.pad_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(kept):
        ids[i, : len(row)] = question.input_ids[0, row]
        mask[i, : len(row)] = 1
    return model.words(ids, mask)


@torch.no_grad()
def votes_of_texts(question: Question, kept: list[list[int]]) -> Tensor:
    """Votes of the picture with the passage cut down to the wordpieces at the given positions. -> [len(kept),
    branches]."""
    order = sorted(range(len(kept)), key=lambda i: len(kept[i]))  # like lengths together: little padding
    parts = [[kept[i] for i in order[start : start + CHUNK]] for start in range(0, len(order), CHUNK)]
    votes = torch.cat([question.model.match_words(question.encoded, cut(question, part)).votes for part in parts])
    return votes[torch.tensor(order, device=votes.device).argsort()]


@torch.no_grad()
def votes_of_images(question: Question, images: dict[str, Tensor]) -> Tensor:
    """Votes of the passage with other pictures. images: {branch: [M, 3, S, S]} -> [M, branches]."""
    result = []
    for start in range(0, len(next(iter(images.values()))), CHUNK):
        part = {n: x[start : start + CHUNK] for n, x in images.items()}
        result.append(question.model.match_words(question.model.encode_images(part), question.read).votes)
    return torch.cat(result)


def votes_of_pictures(question: Question, kept: Tensor) -> Tensor:
    """Votes of the passage with all but some cells of the picture blanked out to its mean colour. kept: bool [M, rows,
    columns] -> [M, branches]."""
    return torch.cat(
        [
            votes_of_images(question, {n: blanked(x, part) for n, x in question.images.items()})
            for part in kept.split(CHUNK)
        ]
    )


def blanked(image: Tensor, kept: Tensor) -> Tensor:
    """A picture [1, 3, S, S] with the cells that are not kept (bool [M, rows, columns]) in its mean colour. -> [M, 3,
    S, S]."""
    side = image.shape[-2:]
    masks = F.interpolate(kept[:, None].float(), size=side, mode="nearest").to(image.device)
    return image * masks + image.mean((2, 3), keepdim=True) * (1 - masks)
