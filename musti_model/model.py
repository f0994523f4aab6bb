"""The model, top to bottom: image branches -> TSF gate -> text encoder -> cosine a branch -> vote -> logit.

Source of the method: MMM2024, "Image-guided Feature Extractor on the MUSTI dataset" (MediaEval 2023). Axes in comments:
B pairs, T text positions (wordpieces, [CLS] and [SEP] included), L the text's full grid, N image tokens, H hidden size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from .attention import bert_attention, vit_attention
from .branches import ImageBranch, ImageTokens
from .config import MustiConfig
from .folder import check_tensors, file_in


@dataclass(frozen=True)
class MustiInternals:
    """What happened inside one forward pass; dictionaries go by branch name.

    gate_image: {branch: [B, T]} L2 norm of ``w_image * I_t``; gate_text: [B, T] L2 norm of ``(1 + w_text) * T_t`` (the gate's text
    term and the residual). Both None without a gate.
    place_weights: {branch: [B, T, N]}, row t says which image tokens (0 the whole, then places in raster order) meet text position
    t; rows of real positions sum to 1; None for a branch whose tokens have no place. grid: {branch: (rows, columns) or None}.
    image_attention: {ViT branch: [B, layers, heads, 1 + places, 1 + places]}, rows sum to 1.
    text_attention: {branch: [B, layers, heads, T, T]}, rows sum to 1 over unmasked positions; without a gate the same for every branch.
    image_vectors: {branch: [B, H]}, the image side of the cosine.
    feature_maps: {CNN branch: [B, C, rows, columns]}, part of the graph when gradients are on.
    """

    gate_image: dict[str, Tensor] | None
    gate_text: Tensor | None
    place_weights: dict[str, Tensor | None]
    grid: dict[str, tuple[int, int] | None]
    image_attention: dict[str, Tensor]
    text_attention: dict[str, Tensor]
    image_vectors: dict[str, Tensor]
    feature_maps: dict[str, Tensor]


@dataclass(frozen=True)
class MustiOutput:
    """The result of a forward pass, always of this one type.

    logits: [B], before temperature; similarities: [B, branches], cosines in -1..1; votes: [B, branches] and vote_bias: [],
    the terms the logit is the sum of; internals: None unless asked for.
    """

    logits: Tensor
    similarities: Tensor
    votes: Tensor
    vote_bias: Tensor
    internals: MustiInternals | None = None


def place_weights(tokens: int, lengths: Tensor, text_length: int) -> Tensor:
    """How image tokens are spread over text positions: row-stochastic weights.

    Position 0 meets token 0 (the whole picture). Position t = 1 .. n - 1 covers the interval [t - 1, t] / (n - 1) of the places laid in
    raster order, and meets each place by the share of that interval it fills. n - 1 equal to the number of places gives the identity
    (as published: token t meets position t).

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


class MustiModel(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="musti",
    license="mit",
    tags=["musti", "olfaction", "image-text-matching"],
    pipeline_tag="image-text-to-text",
):
    """Image-text matching of smells, one class for every variant (see MustiConfig)."""

    def __init__(self, config: MustiConfig) -> None:
        super().__init__()
        self.config = config
        bert = BertModel(BertConfig(**config.text, attn_implementation="sdpa"))
        self.text_embedding, self.text_encoder, self.pooler = bert.embeddings, bert.encoder, bert.pooler
        hidden, grid = bert.config.hidden_size, config.text_length
        taken = [b.name for b in config.branches if hasattr(nn.ModuleDict, b.name)]
        if taken:
            raise ValueError(f"A branch cannot be called {taken[0]!r}; choose another name.")
        self.branches = nn.ModuleDict({b.name: ImageBranch(b, hidden, grid) for b in config.branches})
        self.hidden_norm = nn.LayerNorm(hidden)
        self.grid_norm = nn.LayerNorm(grid)
        self.gate = nn.Linear(2, 1)  # weights (image, text), one bias: three scalars shared by all branches
        self.final_projection = nn.Linear(grid, 1)  # image side, over the token axis
        self.voting = nn.Linear(len(config.branches), 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.prototypes = nn.Parameter(torch.randn(len(config.objects), hidden)) if config.objects else None
        self.none_logit = nn.Parameter(torch.tensor(5.0))
        self._start_gently()

    @classmethod
    def from_pretrained(cls, source: str | Path, *, strict: bool = True, **options: Any) -> "MustiModel":
        """As the mixin's (``revision``, ``token``, ``map_location`` ...), but nothing is left random unseen.

        Raises: RuntimeError for a missing or unexpected weight unless ``strict`` is False. For a folder that is told before anything is built; and
            ValueError for a config.json that has an unknown key, which the mixin would drop, or a value out of range, and for a damaged
            model.safetensors; FileNotFoundError where one of them is missing.
        """
        if Path(source).is_dir():
            config = MustiConfig.load(source)
            if strict:
                with torch.device("meta"):  # shapes alone: an absurd config takes no memory
                    wanted = cls(config).state_dict()
                check_tensors(file_in(source, "model.safetensors"), wanted)
        return super().from_pretrained(source, strict=strict, **options)

    def _start_gently(self) -> None:
        """Gate near zero, image vector = half whole-picture token and half mean, equal votes."""
        with torch.no_grad():
            self.gate.weight.copy_(torch.tensor([[0.05, 0.0]]))
            self.gate.bias.zero_()
            self.final_projection.weight.fill_(0.5 / (self.config.text_length - 1))
            self.final_projection.weight[0, 0] = 0.5
            self.final_projection.bias.zero_()
            self.voting.weight.fill_(1 / len(self.branches))
            self.voting.bias.zero_()

    # Pictures -------------------------------------------------------------------------------------------------------------------

    def encode_images(self, images: dict[str, Tensor]) -> dict[str, ImageTokens]:
        """{branch: [B, 3, S, S]} -> {branch: ImageTokens}."""
        return {n: branch(images[n], self.hidden_norm, self.grid_norm) for n, branch in self.branches.items()}

    def image_vector(self, image: ImageTokens) -> Tensor:
        """Image side of the cosine: Linear(L, 1) over the tokens, laid on the text's full grid. -> [B, H]."""
        tokens = image.tokens
        if image.grid is not None:
            full = torch.tensor([self.config.text_length], device=tokens.device)
            tokens = place_weights(tokens.shape[1], full, self.config.text_length).to(tokens.dtype) @ tokens
        return self.final_projection(tokens.transpose(1, 2)).squeeze(-1)

    # Text -----------------------------------------------------------------------------------------------------------------------

    def fuse(self, text: Tensor, image: Tensor | None) -> Tensor:
        """TSF gate: ``LayerNorm(w_image * I + w_text * T + b + T)``. text, image [B, T, H]; image None is the gate switched off (I = 0)."""
        w_image, w_text = self.gate.weight[0]
        gated = w_text * text + self.gate.bias + text
        return self.hidden_norm(gated if image is None else w_image * image + gated)

    def encode_text(self, fused: Tensor, attention_mask: Tensor) -> Tensor:
        """BERT encoder. [B, T, H] -> [B, T, H]; padding takes part or not, as the config says."""
        if self.config.padding == "carry":
            return self.text_encoder(fused, attention_mask=None).last_hidden_state
        # Additive, so that every attention implementation of transformers understands it; the number also exists in bfloat16.
        mask = (1 - attention_mask[:, None, None, :]) * torch.finfo(torch.bfloat16).min
        return self.text_encoder(fused, attention_mask=mask.to(fused.dtype)).last_hidden_state

    # The match ------------------------------------------------------------------------------------------------------------------

    def forward(
        self,
        images: dict[str, Tensor],
        input_ids: Tensor,
        attention_mask: Tensor,
        return_internals: bool = False,
    ) -> MustiOutput:
        """Scores pairs.

        Args:
            images: {branch: float [B, 3, S, S]}, normalised by the processor.
            input_ids, attention_mask: int [B, T]; T = text_length for padding "carry".
            return_internals: also return what happened inside; the logits stay the same.
        """
        if not return_internals:
            return self.match(self.encode_images(images), input_ids, attention_mask)
        vits = {n: b.backbone for n, b in self.branches.items() if b.is_vit}
        with vit_attention(vits) as image_attention:
            encoded = self.encode_images(images)
        return self.match(encoded, input_ids, attention_mask, {n: a() for n, a in image_attention.items()})

    def match(
        self,
        encoded: dict[str, ImageTokens],
        input_ids: Tensor,
        attention_mask: Tensor,
        image_attention: dict[str, Tensor] | None = None,
        gate_open: bool = True,
    ) -> MustiOutput:
        """Scores pairs of encoded pictures and passages; ``image_attention`` given: internals are returned as well; ``gate_open`` False: the text
        is read without the picture (I = 0).

        One picture (tokens [1, N, H]) meets B passages, and one passage (input_ids [1, T]) B pictures: the one row stands for all.
        """
        text = self.text_embedding(input_ids=input_ids)  # [B, T, H]
        plain = self._pooled(text, attention_mask, image_attention) if self.config.fusion == "none" else None
        cosines, spread, gate_image, text_attention, image_vectors = [], {}, {}, {}, {}
        for name, image in encoded.items():
            met, spread[name] = self.meet(image, attention_mask)
            if self.config.fusion == "none":
                text_vector, text_attention[name] = plain
            else:
                text_vector, text_attention[name] = self._pooled(self.fuse(text, met if gate_open else None), attention_mask, image_attention)
                gate_image[name] = (self.gate.weight[0, 0] * met).float().norm(dim=-1)
            image_vectors[name] = self.image_vector(image)
            cosines.append(F.cosine_similarity(text_vector.float(), image_vectors[name].float(), dim=-1))
        similarities = torch.stack(cosines, dim=1)
        votes, vote_bias = self._vote(similarities)
        internals = None
        if image_attention is not None:
            gated = self.config.fusion == "tsf"
            internals = MustiInternals(
                gate_image=gate_image if gated else None,
                gate_text=((1 + self.gate.weight[0, 1]) * text).float().norm(dim=-1) if gated else None,
                place_weights=spread,
                grid={n: i.grid for n, i in encoded.items()},
                image_attention=image_attention,
                text_attention=text_attention,
                image_vectors=image_vectors,
                feature_maps={n: i.feature_map for n, i in encoded.items() if i.feature_map is not None},
            )
        return MustiOutput(votes.sum(1) + vote_bias, similarities, votes, vote_bias, internals)

    def meet(self, image: ImageTokens, attention_mask: Tensor) -> tuple[Tensor, Tensor | None]:
        """Image tokens [B, N, H] laid on the text positions, [B, T, H], and the weights that laid them, [B, T, N] (see ``place_weights``)."""
        width = attention_mask.shape[1]
        if image.grid is None:
            return image.tokens[:, :width], None  # published axes: token t meets position t, whatever it stands for
        lengths = attention_mask.sum(1) if self.config.padding == "mask" else torch.full_like(attention_mask[:, 0], width)
        weights = place_weights(image.tokens.shape[1], lengths, width)
        return weights.to(image.tokens.dtype) @ image.tokens, weights

    def text_vector(self, image: ImageTokens, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Text side of a branch's cosine, read with the picture through the gate (without a gate, alone). -> [B, H]."""
        text = self.text_embedding(input_ids=input_ids)
        fused = text if self.config.fusion == "none" else self.fuse(text, self.meet(image, attention_mask)[0])
        return self._pooled(fused, attention_mask)[0]

    def _pooled(self, fused: Tensor, mask: Tensor, capture: dict | None = None) -> tuple[Tensor, Tensor | None]:
        """Encoder and pooler: [B, T, H] -> [B, H], and the attention maps if they are to be captured."""
        if capture is None:
            return self.pooler(self.encode_text(fused, mask)), None
        with bert_attention(self.text_encoder, None if self.config.padding == "carry" else mask) as attention:
            vector = self.pooler(self.encode_text(fused, mask))
        return vector, attention()

    def vote_slopes(self) -> Tensor:
        """What each branch's cosine is multiplied by in the logit, [branches]."""
        n = len(self.branches)
        learned = self.config.voting == "learned" and not self._single()
        weights = self.voting.weight[0] if learned else self.voting.weight.new_full((n,), 1 / n)  # else a mean vote
        return weights if self.config.logit == "published" else weights * self.scale

    def _single(self) -> bool:
        """The published one-branch model takes the cosine itself."""
        return len(self.branches) == 1 and self.config.logit == "published"

    def _vote(self, similarities: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines [B, branches] -> their terms in the logit, and the constant."""
        learned = self.config.voting == "learned" and not self._single()
        constant = self.voting.bias[0] if learned else self.bias.new_zeros(())
        if self.config.logit == "affine":
            constant = constant * self.scale + self.bias
        return similarities * self.vote_slopes(), constant

    # Naming ---------------------------------------------------------------------------------------------------------------------

    def name_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Which object each wordpiece names, read without any picture (gate off). -> logits [B, T, objects + 1], last = none."""
        return self.name_states(self.plain_states(input_ids, attention_mask))

    def plain_states(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Text encoder states with the gate off (no picture) -> [B, T, H]."""
        return self.encode_text(self.fuse(self.text_embedding(input_ids=input_ids), None), attention_mask)

    def name_states(self, states: Tensor) -> Tensor:
        """Text encoder states [B, T, H] -> logits [B, T, objects + 1], last = none."""
        logits = self.name_vector(states)
        return torch.cat([logits, self.none_logit.expand(*logits.shape[:-1], 1)], dim=-1)

    def name_vector(self, vector: Tensor) -> Tensor:
        """Cosine logits of vectors [..., H] (image or text side) to the object prototypes -> [..., objects]."""
        return 10 * F.normalize(vector.float(), dim=-1) @ F.normalize(self._known().float(), dim=-1).T

    def _known(self) -> Tensor:
        if self.prototypes is None:
            raise ValueError("These weights have no naming head: their config lists no objects.")
        return self.prototypes
