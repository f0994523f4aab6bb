"""What the method is about: how the words of a passage meet the places of a picture, how far the gate opens, and what
is passed on.

Three kinds of gate (``MustiConfig.gate``), two ways to meet (``MustiConfig.meeting``), one contract (``Fusion``). Axes:
B pairs, T text positions (wordpieces, special tokens included), N image tokens (0 the whole picture, then its places in
raster order), H hidden size.

The published gate (MMM2024, "Image-guided Feature Extractor on the MUSTI dataset", its code): ``LayerNorm(w_image * I_t
+ w_text * T_t + b + T_t)``, three scalars for all words, where word t meets place t. The word gate reads the paper's
sentence "a linear classifier determines the extent to which information from the image encoder is retained" for each
word: ``LayerNorm(T_t + g_t * W m_t)``, where m_t is what the word met and g_t in 0..1 how far its gate opens. A gate
linear in word and places side by side cannot tell whether the two agree, since agreement is a product; it is there for
comparison (``"linear"``).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .config import MustiConfig
from .image_tower import ImageTokens

Opened = Literal["learned", "shut", "open"]


@dataclass(frozen=True)
class Words:
    """A batch of passages as the gate takes it. text: [B, T, H], embeddings; mask: 0/1 [B, T]; read: [B, T, H], the
    encoder's states for the passage read without a picture, None where the gate does not ask for them
    (``Fusion.reads``)."""

    text: Tensor
    mask: Tensor
    read: Tensor | None = None

    @property
    def states(self) -> Tensor:
        """``read``, for gates that ask for it. Raises ValueError for passages that were not read."""
        if self.read is None:
            raise ValueError(
                "The gate compares words with places, so it needs the passage's states (MustiModel.words reads them)."
            )
        return self.read


@dataclass(frozen=True)
class Met:
    """What each text position met in one branch's pictures.

    image: [B, T, H], the mean of the tokens that it met; weights: [B, T, N], how much of each, rows of real positions
    sum to 1 (None where image tokens have no place, published axes); agreement: [B, T], cosine -1..1 of word and
    places, mean by the weights (None for meeting "place" with the scalar or linear gate); opening: [B, T], 0..1, how
    far the gate opens (1 for the scalar gate, which has no value for a word).
    """

    image: Tensor
    weights: Tensor | None
    agreement: Tensor | None
    opening: Tensor


def place_weights(tokens: int, lengths: Tensor, text_length: int) -> Tensor:
    """How image tokens are spread over text positions by reading order: row-stochastic weights.

    Position 0 meets token 0 (the whole picture). Position t = 1 .. n - 1 covers the interval [t - 1, t] / (n - 1) of
    the places laid in raster order, and meets each place by the share of that interval it fills. n - 1 equal to the
    number of places gives the identity (as published: token t meets position t).

    Args:
        tokens: N = 1 + places. lengths: int [B], n of each passage. text_length: T.

    Returns: float32 [B, T, N]; rows t >= n are zero.
    """
    places = tokens - 1
    device = lengths.device
    span = (lengths - 1).clamp(min=1).view(-1, 1, 1).float()
    t = torch.arange(1, text_length, device=device).view(1, -1, 1).float()
    low, high = (t - 1) / span, t / span  # [B, T-1, 1]
    edge = torch.arange(places, device=device).view(1, 1, -1).float()
    overlap = torch.minimum(high, (edge + 1) / places) - torch.maximum(low, edge / places)
    inner = overlap.clamp(min=0) * span
    weights = torch.zeros(len(lengths), text_length, tokens, device=device)
    weights[:, 0, 0] = 1.0
    weights[:, 1:, 1:] = inner
    return weights


class Fusion(nn.Module):
    """The contract of all gates, and the gate "none", which passes the text on as it is.

    ``meet`` says what each word met and how far its gate opens; ``fuse`` passes text and picture on to the text
    encoder; ``shares`` says how much of the picture each word got, 0..1. ``base``, ``through`` and ``opening`` are the
    terms that ``fuse`` adds up before its LayerNorm: ``norm(base(T) + g * through(m))``.

    space: where words and places are compared, None where they are not; gated: whether there is a gate at all; by_word:
    whether it opens at each word as far as fits that word (``Met.opening``); about: what it does, for model cards.
    """

    gated = False
    by_word = False
    about = "no gate: the text is read alone"

    def __init__(self, config: MustiConfig, hidden: int) -> None:
        super().__init__()
        self.carry = config.padding == "carry"
        self.norm = nn.LayerNorm(hidden)  # shared with the published CNN projection
        self.space: CommonSpace | None = None

    @property
    def reads(self) -> bool:
        """Whether ``meet`` needs the passage's states read without a picture: only they can be compared with places."""
        return self.space is not None

    def meet(self, image: ImageTokens, words: Words) -> Met:
        """By reading order. image tokens [B or 1, N, H]."""
        met, weights = self._by_place(image, words.mask)
        return Met(met, weights, None, torch.ones_like(met[..., 0]))

    def fuse(self, text: Tensor, met: Met | None, gate: Opened = "learned", opened: float | Tensor = 1.0) -> Tensor:
        """What the text encoder reads.

        Args:
            text: [B, T, H]; met: None reads the passage without a picture.
            gate: "learned", "shut" (no picture, I = 0) or "open" (let in at every word alike: no selection).
            opened: a factor on what is let in, 0..1, for those who follow the gate from shut to open; broadcast against
                [B, T, H].

        Returns: [B, T, H].
        """
        if not self.gated:
            return text
        base = self.base(text)
        if met is None or gate == "shut":
            return self.norm(base)
        return self.norm(base + opened * self.added(met, gate))

    def added(self, met: Met, gate: Opened = "learned") -> Tensor:
        """What the gate lets in at each position, before the LayerNorm: [B, T, H]."""
        through = self.through(met.image)
        return through if gate == "open" else met.opening[..., None] * through

    def base(self, text: Tensor) -> Tensor:
        """The text's own term: [B, T, H] -> [B, T, H]."""
        return text

    def through(self, image: Tensor) -> Tensor:
        """The image term of a gate that is wide open, linear in the image: [..., H] -> [..., H]."""
        return image

    def shares(self, words: Words, met: Met) -> Tensor:
        """How much of the picture each position got: [B, T], 0..1."""
        return torch.zeros_like(met.opening)

    def word_space(self, states: Tensor) -> Tensor:
        """Where words are named and compared with places: encoder states [..., H] -> [..., H]."""
        return states

    def place_space(self, tokens: Tensor) -> Tensor:
        """Where places are named and compared with words: image tokens [..., H] -> [..., H]."""
        return tokens

    def _by_place(self, image: ImageTokens, mask: Tensor) -> tuple[Tensor, Tensor | None]:
        width = mask.shape[1]
        if image.grid is None:
            return image.tokens[:, :width], None  # published axes: token t meets position t, whatever it stands for
        lengths = torch.full_like(mask[:, 0], width) if self.carry else mask.sum(1)
        weights = place_weights(image.tokens.shape[1], lengths, width)
        return weights.to(image.tokens.dtype) @ image.tokens, weights


class CommonSpace(nn.Module):
    """Where words and places are compared: ``cos(p(h_t), q(I_n))``. p and q are linear and lead to the space of the
    object prototypes, so that a word and a place that name the same thing agree; ``tau``: how sharply a word looks for
    its places, ``a_tn = softmax_n(tau * cos(p(h_t), q(I_n)))``."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.word, self.place = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.tau = nn.Parameter(torch.tensor(16.0))
        with torch.no_grad():
            for side in (self.word, self.place):
                side.weight.copy_(torch.eye(hidden))
                side.bias.zero_()

    def look(self, queries: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """queries [B or 1, T, H], already in the common space; image tokens [B or 1, N, H] -> weights [B, T, N] over
        the places (the whole, token 0, gets 0), rows sum to 1; and agreement [B, T], the mean of the cosines by these
        weights."""
        with torch.autocast(tokens.device.type, enabled=False):  # the gate is steep: half precision would be seen in it
            keys = F.normalize(self.place(tokens[:, 1:].float()), dim=-1)
            cosines = F.normalize(queries.float(), dim=-1) @ keys.transpose(1, 2)  # [B, T, places]
            weights = (self.tau * cosines).softmax(-1)
            return F.pad(weights, (1, 0)), (weights * cosines).sum(-1)


class Gated(Fusion):
    """A gate: meeting by reading order or by content."""

    gated = True

    def __init__(self, config: MustiConfig, hidden: int) -> None:
        super().__init__(config, hidden)
        self.by_content = config.meeting == "content"
        if self.by_content or config.gate == "word":
            self.space = CommonSpace(hidden)

    def meet(self, image: ImageTokens, words: Words) -> Met:
        """Raises ValueError for meeting by content where image tokens have no place (published axes)."""
        agreement, space = None, self.space if self.by_content else None
        if space is None:
            met, weights = self._by_place(image, words.mask)
        elif image.grid is None:
            raise ValueError("Words can only look for places where image tokens have places; published axes have none.")
        else:
            weights, agreement = space.look(self.word_space(words.states), image.tokens)
            met = weights.to(image.tokens.dtype) @ image.tokens
        return Met(met, weights, *self._opening(words, met, agreement))

    def _opening(self, words: Words, met: Tensor, agreement: Tensor | None) -> tuple[Tensor | None, Tensor]:
        """-> agreement and opening, [B, T] each."""
        return agreement, torch.ones_like(met[..., 0])

    def word_space(self, states: Tensor) -> Tensor:
        """States of words in the common space, where there is one."""
        return states if self.space is None else self.space.word(states)

    def place_space(self, tokens: Tensor) -> Tensor:
        """Image tokens in the common space, where there is one."""
        return tokens if self.space is None else self.space.place(tokens)


class ScalarGate(Gated):
    """The published gate: ``norm(w_image * I + w_text * T + b + T)``; three scalars shared by all words and
    branches."""

    about = "a text selection feature (TSF) gate of three scalars mixes picture and text"

    def __init__(self, config: MustiConfig, hidden: int) -> None:
        super().__init__(config, hidden)
        self.scalars = nn.Linear(2, 1)  # weights (image, text), one bias
        with torch.no_grad():
            self.scalars.weight.copy_(torch.tensor([[0.05, 0.0]]))
            self.scalars.bias.zero_()

    def base(self, text: Tensor) -> Tensor:
        """What a word is with the picture taken away."""
        return self.scalars.weight[0, 1] * text + self.scalars.bias + text

    def through(self, image: Tensor) -> Tensor:
        """What the open gate lets through of what a word met."""
        return self.scalars.weight[0, 0] * image

    def shares(self, words: Words, met: Met) -> Tensor:
        """Norm of the image term over the sum of the norms of both terms; 0 where both are 0."""
        image = self.through(met.image).float().norm(dim=-1)
        text = ((1 + self.scalars.weight[0, 1]) * words.text).float().norm(dim=-1)
        return image / (image + text).clamp(min=1e-12)


class WordGate(Gated):
    """A gate with a value for each word: ``norm(T_t + g_t * W m_t)``, ``g_t = sigmoid(alpha * s_t + beta + u . h_t)``,
    s_t the agreement of the word with the places it met, h_t the word as read without a picture (u . h_t is a score of
    the word alone, whatever the picture)."""

    by_word = True
    about = "a gate lets the picture in at each word as far as the word agrees with what it meets there"

    def __init__(self, config: MustiConfig, hidden: int) -> None:
        super().__init__(config, hidden)
        self.pass_on = nn.Linear(hidden, hidden, bias=False)  # W
        self.alpha, self.beta = nn.Parameter(torch.tensor(20.0)), nn.Parameter(torch.tensor(-10.0))
        self.word_score = nn.Linear(hidden, 1, bias=False)  # u
        with torch.no_grad():
            self.pass_on.weight.copy_(torch.eye(hidden))
            self.word_score.weight.zero_()

    def through(self, image: Tensor) -> Tensor:
        """What the open gate lets through of what a word met."""
        return self.pass_on(image)

    def shares(self, words: Words, met: Met) -> Tensor:
        """How far the gate opens."""
        return met.opening

    def open_at(self, agreement: Tensor) -> Tensor:
        """Logit of the opening at an agreement, whatever the word: [...] -> [...]."""
        return self.alpha * agreement + self.beta

    def _opening(self, words: Words, met: Tensor, agreement: Tensor | None) -> tuple[Tensor | None, Tensor]:
        if agreement is None:  # by reading order: the word against the one place it happens to meet
            agreement = F.cosine_similarity(
                self.word_space(words.states).float(), self.place_space(met).float(), dim=-1
            )
        return agreement, (self.open_at(agreement) + self.word_score(words.states)[..., 0]).float().sigmoid()


class LinearGate(Gated):
    """The paper's sentence taken literally: the image appended to the text, and a linear classifier on both: ``g_t =
    sigmoid(v . [T_t; m_t] + c)``. It adds a score of the word and one of the places; whether the two agree it cannot
    tell."""

    by_word = True
    about = "a gate lets the picture in at each word, as far as a linear classifier of word and picture says"

    def __init__(self, config: MustiConfig, hidden: int) -> None:
        super().__init__(config, hidden)
        self.pass_on = nn.Linear(hidden, hidden, bias=False)
        self.classifier = nn.Linear(2 * hidden, 1)
        with torch.no_grad():
            self.pass_on.weight.copy_(torch.eye(hidden))
            self.classifier.weight.mul_(0.1)
            self.classifier.bias.zero_()

    def through(self, image: Tensor) -> Tensor:
        """What the open gate lets through of what a word met."""
        return self.pass_on(image)

    def shares(self, words: Words, met: Met) -> Tensor:
        """How far the gate opens."""
        return met.opening

    def _opening(self, words: Words, met: Tensor, agreement: Tensor | None) -> tuple[Tensor | None, Tensor]:
        both = torch.cat([words.text.expand_as(met), met], dim=-1)
        return agreement, self.classifier(both)[..., 0].float().sigmoid()


GATES: dict[str, type[Fusion]] = {"none": Fusion, "scalar": ScalarGate, "word": WordGate, "linear": LinearGate}


def make_fusion(config: MustiConfig, hidden: int) -> Fusion:
    """The gate that a config asks for."""
    return GATES[config.gate](config, hidden)
