"""What the starter is taught: names of words and of places, where things are, the gate, and pairs."""

from functools import partial, reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from musti_model.fusion import WordGate, Words
from musti_model.image_tower import ImageTokens
from musti_model.model import MustiModel

from ..loop.losses import FocalLoss, gate_loss
from .augment import box_places, branch_input
from .drawing import IGNORE, Album, KeptAlbum, Shown, Texts, draw_pairs
from .scoring import grid_of

OTHER, NONE = 0, 2  # labels of ``gate_loss``: names another thing; names nothing


def features_of(model: MustiModel, pixels: Tensor) -> dict[str, Tensor]:
    """What each branch's backbone makes of pictures, float32 [R, 3, S, S] in 0..1."""
    return {name: branch.features(branch_input(pixels, branch.config)) for name, branch in model.towers.items()}


class Objective:
    """The loss of both stages.

    "names": wordpieces and pictures (all branches) toward the same object prototypes; in collages each object is to be
    found in its own box; a prototype opens the gate for the pictures that show its object and for no others. "match"
    (focal given) adds pairs: the focal loss on the vote and on each branch alone, the gate's own loss (``gate_loss``),
    and what the fused text is to be: for YES the shared object, for NO nothing known. So a passage read without the
    picture says nothing, and the answer needs the gate.

    none: weight of the wordpieces that name nothing, which are nearly all; gate, pooled: weights of the losses of these
    names, 0 leaves them out.
    """

    def __init__(
        self,
        album: Album | KeptAlbum,
        focal: FocalLoss | None = None,
        none: float = 0.3,
        gate: float = 1.0,
        pooled: float = 0.5,
    ) -> None:
        self.album, self.focal, self.none, self.gate, self.pooled = album, focal, none, gate, pooled

    def __call__(self, model: MustiModel, texts: Texts) -> tuple[Tensor, dict[str, float]]:
        """-> loss [], parts."""
        texts = texts.to(next(model.parameters()).device)
        shown = self.album.draw(texts.shown, texts.seed)
        encoded = self.encoded(model, shown)
        words = model.words(texts.input_ids, texts.attention_mask)
        parts = {"words": self._words(model, words, texts)} | self._pictures(model, encoded, shown)
        parts |= self._pairs(model, encoded, words, texts, shown)
        loss = reduce(torch.add, parts.values())
        with torch.no_grad():
            values = torch.stack([v.detach().float() for v in parts.values()]).tolist()
        return loss, dict(zip(parts, values, strict=True))

    def encoded(self, model: MustiModel, shown: Shown) -> dict[str, ImageTokens]:
        """Image tokens of the batch's pictures."""
        features = shown.encoded(partial(features_of, model))
        return {
            n: branch.to_tokens(features[n], model.fusion.norm, model.grid_norm) for n, branch in model.towers.items()
        }

    def _words(self, model: MustiModel, words: Words, texts: Texts) -> Tensor:
        known = len(model.config.objects)
        weight = torch.ones(known + 1, device=texts.pieces.device)
        weight[known] = self.none
        return F.cross_entropy(
            model.name_words(words).flatten(0, 1), texts.pieces.flatten(), weight, ignore_index=IGNORE
        )

    def _pictures(self, model: MustiModel, encoded: dict[str, ImageTokens], shown: Shown) -> dict[str, Tensor]:
        """Means over the branches: naming (single pictures and pictures of nothing), by places and by the image vector;
        the gate of the prototypes; where the items of collages are."""
        known, mixed = len(model.config.objects), len(shown.objects)
        single = torch.ones(len(shown.presence), dtype=torch.bool, device=shown.presence.device)
        single[shown.singles : shown.singles + mixed] = False
        target = torch.where(shown.presence.any(1), shown.presence.float().argmax(1), known)[single]
        named, opened, placed = [], [], []
        for image in encoded.values():
            by_place = F.cross_entropy(model.name_picture(image)[single], target)
            things = target < known
            whole = F.cross_entropy(model.name_vector(model.image_vector(image))[single][things], target[things])
            named.append(by_place + 0.5 * whole)
            if model.fusion.space is not None:
                weights, agreement = model.fusion.space.look(model.known_prototypes()[None], image.tokens)
                placed.append(self._in_place(weights[..., 1:], grid_of(image), shown))
                if isinstance(model.fusion, WordGate):
                    opening = model.fusion.open_at(agreement).sigmoid()
                    opened.append(gate_loss(opening, torch.where(shown.presence, 1, OTHER), other=1.0))
        parts = {"pictures": named, "prototypes": opened, "places": placed}
        return {n: torch.stack(losses).mean() for n, losses in parts.items() if losses}

    def _in_place(self, weights: Tensor, grid: tuple[int, int], shown: Shown) -> Tensor:
        """How little of each collage item's prototype looks at where the item is. weights: [R, objects, places]."""
        items, boxes = shown.objects, box_places(shown.boxes, grid)  # [C, 4], [C, 4, places]
        same = (items[:, :, None] == items[:, None, :]) & (items[:, :, None] >= 0)
        inside = (same[..., None] & boxes[:, None]).any(2)  # two items of one object: either will do
        own = weights[shown.singles : shown.singles + len(items)].gather(
            1, items.clamp(min=0)[..., None].expand(-1, -1, weights.shape[-1])
        )
        found = (own * inside).sum(-1).clamp(min=1e-6)
        return -(found.log() * (items >= 0) * inside.any(-1)).sum() / (items >= 0).sum().clamp(min=1)

    def _pairs(
        self, model: MustiModel, encoded: dict[str, ImageTokens], words: Words, texts: Texts, shown: Shown
    ) -> dict[str, Tensor]:
        if self.focal is None:
            return {}
        generator = torch.Generator(texts.named.device).manual_seed(texts.seed + 1)
        (rows, columns), labels = (p := draw_pairs(texts, shown, generator))[0].T, p[1]
        chosen = {n: t.select(columns) for n, t in encoded.items()}
        asked = Words(words.text[rows], words.mask[rows], None if words.read is None else words.read[rows])
        output = model.match_words(chosen, asked)
        # each branch is held to the answer by itself, or the better one would let the other starve
        alone = model.scale * output.similarities + model.bias
        focal = self.focal(output.logits, labels) + 0.5 * sum(self.focal(z, labels) for z in alone.T) / alone.shape[1]
        parts = {"pairs": 10 * focal}
        if self.gate and model.fusion.by_word:
            targets = self._gate_labels(texts.pieces[rows], shown.presence[columns])
            openings = [model.fusion.meet(image, asked).opening for image in chosen.values()]
            parts["gate"] = (
                self.gate * sum(gate_loss(o, targets, other=1.5, none=1.0) for o in openings) / len(openings)
            )
        if self.pooled and model.fusion.gated:
            parts["pooled"] = self.pooled * self._pooled(
                model, output.text_vectors, texts.named[rows] & shown.presence[columns], labels
            )
        return parts

    @staticmethod
    def _gate_labels(pieces: Tensor, presence: Tensor) -> Tensor:
        """Labels of ``gate_loss``. pieces [P, T]; presence [P, objects]."""
        known = presence.shape[1]
        shown = presence.gather(1, pieces.clamp(0, known - 1))
        labels = torch.where(shown, 1, OTHER)
        labels = torch.where(pieces == known, NONE, labels)
        return torch.where(pieces == IGNORE, IGNORE, labels)

    @staticmethod
    def _pooled(model: MustiModel, vectors: Tensor, shared: Tensor, labels: Tensor) -> Tensor:
        """Fused text [P, branches, H]: the shared objects for YES, nothing known for NO."""
        logits = model.name_vector(vectors)
        logits = torch.cat([logits, model.nothing_logit.expand(*logits.shape[:-1], 1)], dim=-1)
        target = torch.cat([shared.float(), (labels == 0).float()[:, None]], dim=1)
        target = target / target.sum(1, keepdim=True).clamp(min=1)
        return F.cross_entropy(logits.flatten(0, 1), target[:, None].expand(-1, logits.shape[1], -1).flatten(0, 1))
