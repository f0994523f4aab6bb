"""Which words and which regions of the picture speak for and against the answer, signed; by several methods, on one example.

Every method gives a value a branch; the whole model's is their sum, as its logit is that of their votes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .attention import attention_gradients, has_class_token
from .branches import ImageTokens
from .explain import to_frame
from .model import MustiModel

CHUNK = 64  # altered inputs run at once
WORDS_BY, REGIONS_BY = "occlusion", "in place and close up"  # the methods that measured best, see benchmarks/faithfulness.py
CELLS = 8  # rows and columns of the picture that are blanked out
RIDGE, SMOOTH = 5.0, 15.0  # of the linear model of votes, chosen by deletion and grid pointing on test pairs of the starter


@dataclass(frozen=True, eq=False)
class Case:
    """One pair as the model takes it. images: {branch: [1, 3, S, S]}; encoded: their tokens; input_ids, mask: [1, T]; words: positions of the
    wordpieces of each word."""

    model: MustiModel
    images: dict[str, Tensor]
    encoded: dict[str, ImageTokens]
    input_ids: Tensor
    mask: Tensor
    words: list[tuple[int, ...]]

    @property
    def length(self) -> int:
        """Wordpieces that are not padding."""
        return int(self.mask.sum())

    @torch.no_grad()
    def probability(self, votes: Tensor) -> np.ndarray:
        """Votes [M, branches] -> calibrated probabilities of YES [M]."""
        constant = self.model.match(self.encoded, self.input_ids, self.mask).vote_bias
        logits = (votes.sum(1) + constant).float().cpu().numpy().astype(float)
        return 1 / (1 + np.exp(-logits / self.model.config.temperature))


def cut_texts(case: Case, kept: list[list[int]]) -> tuple[Tensor, Tensor]:
    """The passage cut down to the wordpieces at the given positions, padded as the model wants it. -> input_ids, mask [len(kept), T]."""
    carry = case.model.config.padding == "carry"
    width = case.input_ids.shape[1] if carry else max(len(row) for row in kept)
    pad = case.input_ids[0, -1] if case.length < case.input_ids.shape[1] else case.input_ids.new_zeros(())
    ids = pad.repeat(len(kept), width)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(kept):
        ids[i, : len(row)] = case.input_ids[0, row]
        mask[i, : len(row)] = 1
    return ids, mask


@torch.no_grad()
def votes_of_texts(case: Case, kept: list[list[int]]) -> Tensor:
    """Votes of the picture with the passage cut down to the wordpieces at the given positions. -> [len(kept), branches]."""
    order = sorted(range(len(kept)), key=lambda i: len(kept[i]))  # like lengths together: little padding
    parts = [[kept[i] for i in order[start : start + CHUNK]] for start in range(0, len(order), CHUNK)]
    votes = torch.cat([case.model.match(case.encoded, *cut_texts(case, part)).votes for part in parts])
    return votes[torch.tensor(order, device=votes.device).argsort()]


@torch.no_grad()
def votes_of_pictures(case: Case, kept: Tensor) -> Tensor:
    """Votes of the passage with all but some cells of the picture blanked out to its mean colour. kept: bool [M, rows, columns] -> [M, branches]."""
    result = []
    for start in range(0, len(kept), CHUNK):
        part = kept[start : start + CHUNK]
        images = {name: blanked(x, part) for name, x in case.images.items()}
        result.append(case.model.match(case.model.encode_images(images), case.input_ids, case.mask).votes)
    return torch.cat(result)


def blanked(image: Tensor, kept: Tensor) -> Tensor:
    """A picture [1, 3, S, S] with the cells that are not kept (bool [M, rows, columns]) in its mean colour. -> [M, 3, S, S]."""
    side = image.shape[-2:]
    masks = F.interpolate(kept[:, None].float(), size=side, mode="nearest").to(image.device)
    return image * masks + image.mean((2, 3), keepdim=True) * (1 - masks)


# Words ------------------------------------------------------------------------------------------------------------------------------


def words_by_occlusion(case: Case) -> Tensor:
    """Each word struck out, and each word alone: the mean of what its absence takes from the vote and what its presence adds to a passage
    without words. The second half keeps a name that stands twice from hiding itself. -> [words, branches], logit units."""
    everything = list(range(case.length))
    rest = sorted(set(everything).difference(*case.words))
    without = [[p for p in everything if p not in pieces] for pieces in case.words]
    alone = [sorted({*rest, *pieces}) for pieces in case.words]
    votes = votes_of_texts(case, [everything, rest, *without, *alone])
    n = len(case.words)
    return ((votes[0] - votes[2 : 2 + n]) + (votes[2 + n :] - votes[1])) / 2


@torch.enable_grad()
def words_by_relevance(case: Case) -> Tensor:
    """Gradient-weighted attention of the text encoder (Chefer et al. 2021, eq. 5-6), for the vote minus against it. -> [words, branches],
    shares of the branch's vote (``shares_of_vote``)."""
    columns = []
    for k in range(len(case.model.branches)):
        with attention_gradients(case.model.text_encoder.layer) as layers:
            vote = case.model.match(case.encoded, case.input_ids, case.mask).votes[0, k]
            pairs = layers(vote, k if case.model.config.fusion == "tsf" else 0)
        start = torch.zeros(case.input_ids.shape[1], device=vote.device)
        start[0] = 1
        values = relevance(pairs, start)
        columns.append(shares_of_vote(torch.stack([values[list(pieces)].sum() for pieces in case.words]), vote))
    return torch.stack(columns, dim=1).detach()


def shares_of_vote(values: Tensor, vote: Tensor) -> Tensor:
    """Values without a unit, scaled until their absolute values add up to that of the vote: one scale for branches of different kinds."""
    return values.detach() * (vote.detach().abs() / values.detach().abs().sum().clamp(min=1e-12))


def relevance(layers: list[tuple[Tensor, Tensor]], start: Tensor) -> Tensor:
    """Relevance of the input tokens to an output, signed: the rule with the output's gradient minus the rule with its negative.

    Args:
        layers: (attention, its gradient) [heads, N, N] each, first layer first. start: [N], weights of the last layer's tokens in the output.

    Returns: [N].
    """
    signed = torch.zeros_like(start)
    for sign in (1.0, -1.0):
        row = start.clamp(min=0) if sign > 0 else start.abs()
        total = torch.eye(len(start), dtype=start.dtype, device=start.device)
        for attention, gradient in layers:
            total = total + (sign * attention * gradient).clamp(min=0).mean(0) @ total
        signed += sign * (row @ total - row)  # without the identity: only what attention carried
    return signed


# Pictures ---------------------------------------------------------------------------------------------------------------------------


def regions_in_place(case: Case, maskings: int = 192, seed: int = 0) -> dict[str, Tensor]:
    """What showing a cell adds to the vote, by a linear model fitted to the votes for a picture of which random cells are hidden (LIME, Ribeiro et al. 2016,
    eq. 1, with every masking of the same weight and cells in place of segments). Half of the maskings are the other half's complements. Few maskings
    leave many linear models that fit; of these the one whose cells are small and like their neighbours is taken (``RIDGE``, ``SMOOTH``).
    -> {branch: [CELLS, CELLS]}, logit units; the maps of the branches add up to that of their sum.
    """
    rng, count = np.random.default_rng(seed), CELLS * CELLS
    half = [rng.permutation(count) < rng.integers(1, count) for _ in range(maskings // 2)]
    kept = torch.from_numpy(np.stack([mask for shown in half for mask in (shown, ~shown)]))
    votes = votes_of_pictures(case, kept.view(-1, CELLS, CELLS)).double().cpu()
    cells = kept.double() - 0.5
    votes = votes - votes.mean(0)  # the constant; every cell is shown in half of the maskings
    values = torch.linalg.solve(cells.T @ cells + RIDGE * torch.eye(count) + SMOOTH * _laplacian(CELLS), cells.T @ votes).float()
    return {name: values[:, k].reshape(CELLS, CELLS) for k, name in enumerate(case.model.branches)}


def _laplacian(side: int) -> Tensor:
    """The Laplacian of a grid: v @ L @ v is the sum of the squared differences of neighbours. -> float64 [side^2, side^2]."""
    line = torch.diff(torch.eye(side, dtype=torch.float64), dim=0)
    along, eye = line.T @ line, torch.eye(side, dtype=torch.float64)
    return torch.kron(along, eye) + torch.kron(eye, along)


@torch.no_grad()
def regions_close_up(case: Case) -> dict[str, Tensor]:
    """Windows of half the picture's side looked at alone and enlarged: the vote for each, less the mean of all windows, averaged over the windows
    that a cell lies in. A window that holds what the passage names stands out also where the thing is too small to be seen in the whole
    picture. -> {branch: [CELLS, CELLS]}, logit units of a whole picture, spread over the cells."""
    side, step = CELLS // 2, CELLS // 4
    corners = [(r, c) for r in range(0, CELLS - side + 1, step) for c in range(0, CELLS - side + 1, step)]
    images = {name: torch.cat([_enlarged(x, r, c, side) for r, c in corners]) for name, x in case.images.items()}
    votes = case.model.match(case.model.encode_images(images), case.input_ids, case.mask).votes.float().cpu()
    cover = torch.zeros(len(corners), CELLS, CELLS)
    for row, (r, c) in zip(cover, corners, strict=True):
        row[r : r + side, c : c + side] = 1
    values = torch.einsum("wk,wij->kij", votes - votes.mean(0), cover) / cover.sum(0) / CELLS**2
    return {name: values[k] for k, name in enumerate(case.model.branches)}


def _enlarged(image: Tensor, row: int, column: int, side: int) -> Tensor:
    """A window [1, 3, S, S] of cells, enlarged to the whole frame."""
    size = image.shape[-1]
    rows, columns = (slice(at * size // CELLS, (at + side) * size // CELLS) for at in (row, column))
    return F.interpolate(image[..., rows, columns], size=image.shape[-2:], mode="bilinear", align_corners=False)


def regions_both(case: Case) -> dict[str, Tensor]:
    """Half of ``regions_in_place`` and the whole of ``regions_close_up``: what the answer to this picture hangs on, and what each part would answer."""
    near = regions_close_up(case)
    return {name: values / 2 + near[name] for name, values in regions_in_place(case).items()}


@torch.no_grad()
def regions_by_contribution(case: Case) -> dict[str, Tensor]:
    """What each place of a branch would vote if the whole picture were like it, less what it takes to say YES: above 0 speaks for, below 0
    against. -> {branch: [rows, columns]}, logit units, weighted so that the branch's places share its part of the logit.

    The image vector is a weighted sum of the tokens (``MustiModel.image_vector``), so its dot product with the text is one too.
    """
    model, result = case.model, {}
    slopes, count = model.vote_slopes(), len(case.encoded)
    output = case.model.match(case.encoded, case.input_ids, case.mask)
    needed = (model.config.temperature * _logit(model.config.threshold) - output.vote_bias) / count
    for slope, (name, image) in zip(slopes, case.encoded.items(), strict=True):
        if image.grid is None:
            continue
        text = F.normalize(model.text_vector(image, case.input_ids, case.mask).float(), dim=-1)[0]
        cosines = F.normalize(image.tokens[0, 1:].float(), dim=-1) @ text
        result[name] = ((slope * cosines - needed) / cosines.numel()).reshape(image.grid).float().cpu()
    return result


def _logit(probability: float) -> float:
    """Finite also for a threshold of 0 or 1, which only says that every pair, or none, is a YES."""
    p = min(max(probability, 1e-6), 1 - 1e-6)
    return float(np.log(p / (1 - p)))


@torch.enable_grad()
def regions_by_relevance(case: Case) -> dict[str, Tensor]:
    """ViT: gradient-weighted attention (Chefer et al. 2021), for the vote minus against it. CNN: gradient times activation at each place
    (HiResCAM, Draelos & Carin 2020, eq. 3), signed. -> {branch: [rows, columns]}, shares of the branch's vote (``shares_of_vote``)."""
    model, result = case.model, {}
    for k, (name, branch) in enumerate(model.branches.items()):
        image = case.encoded[name]
        if image.grid is None or branch.is_swin:
            continue
        if branch.is_vit:
            with attention_gradients(branch.backbone.blocks) as layers:
                image = branch(case.images[name], model.hidden_norm, model.grid_norm)
                vote = model.match({**case.encoded, name: image}, case.input_ids, case.mask).votes[0, k]
                pairs = layers(vote, 0)
            prefix = branch.backbone.num_prefix_tokens
            start = torch.zeros(pairs[0][0].shape[-1], device=vote.device)
            if has_class_token(branch.backbone):
                start[0] = 1.0
            else:  # the whole is the mean of the places
                start[prefix:] = 1 / (len(start) - prefix)
            values = relevance(pairs, start)[prefix:].reshape(image.grid)
        else:
            image = branch(case.images[name], model.hidden_norm, model.grid_norm)
            vote = model.match({**case.encoded, name: image}, case.input_ids, case.mask).votes[0, k]
            (gradient,) = torch.autograd.grad(vote, image.feature_map)
            values = (gradient * image.feature_map)[0].sum(0)
        result[name] = shares_of_vote(values, vote).float().cpu()
    return result


def combined(maps: dict[str, Tensor]) -> Tensor:
    """The branches' maps on the finest of their grids, added; each keeps its sum. -> [rows, columns]."""
    rows, columns = (max(m.shape[i] for m in maps.values()) for i in (0, 1))
    total = torch.zeros(rows, columns)
    for values in maps.values():
        finer = F.interpolate(values[None, None], size=(rows, columns), mode="bilinear", align_corners=False)[0, 0]
        total += finer * (values.numel() / finer.numel())
    return total


@dataclass(frozen=True, eq=False)
class Evidence:
    """What speaks for (above 0) and against (below 0) the answer YES, for the whole model or one branch, in units of the logit, or, by relevance, in
    shares of the vote.

    words: aligned with ``Explanation.words``; map: float32 [H, W] in the picture's frame, None where the method needs tokens with a place and
    they have none; methods:
    {"words": key of WORD_METHODS, "regions": key of REGION_METHODS}; branches: {name: Evidence of it}, empty for one branch; missing:
    [(object, probability)]: what the picture seems to show, and the probability of YES if the passage began with that object's English
    name; only where the answer is NO and the weights can name.
    """

    words: list[float]
    grid: Tensor | None
    size: tuple[int, int]
    methods: dict[str, str]
    branches: dict[str, "Evidence"] = field(default_factory=dict)
    missing: list[tuple[str, float]] = field(default_factory=list)

    @property
    def map(self) -> np.ndarray | None:
        """[H, W], stretched from the grid when asked for."""
        return None if self.grid is None else to_frame(self.grid, *self.size)

    def fit(self, size: tuple[int, int]) -> "Evidence":
        """The same for a picture of another size (width, height)."""
        return replace(self, size=size, branches={n: e.fit(size) for n, e in self.branches.items()})

    def to_json(self) -> dict[str, Any]:
        """Plain values; the map on its own grid."""
        grid = None if self.grid is None else self.grid.tolist()
        branches = {n: {"words": e.words, "grid": None if e.grid is None else e.grid.tolist()} for n, e in self.branches.items()}
        missing = [{"object": o, "probability": p} for o, p in self.missing]
        return {"words": self.words, "grid": grid, "methods": self.methods, "branches": branches, "missing": missing}


def evidence_of(case: Case, size: tuple[int, int], words: str = WORDS_BY, regions: str = REGIONS_BY) -> Evidence:
    """Evidence by two methods. size: (width, height) of the picture. Raises KeyError for an unknown method."""
    methods = {"words": words, "regions": regions}
    by_word = WORD_METHODS[words](case).float().cpu()
    maps = REGION_METHODS[regions](case)
    branches = {n: Evidence(by_word[:, k].tolist(), maps.get(n), size, methods) for k, n in enumerate(case.model.branches)}
    return Evidence(by_word.sum(1).tolist(), combined(maps) if maps else None, size, methods, branches)


WORD_METHODS: dict[str, Callable[[Case], Tensor]] = {"occlusion": words_by_occlusion, "relevance": words_by_relevance}
REGION_METHODS: dict[str, Callable[[Case], dict[str, Tensor]]] = {
    "in place and close up": regions_both, "in place": regions_in_place, "close up": regions_close_up,
    "contribution": regions_by_contribution, "relevance": regions_by_relevance,
}  # fmt: skip
