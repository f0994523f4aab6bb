"""The model, top to bottom: image towers -> gate -> text encoder -> cosine a branch -> vote -> logit.

Source of the method: MMM2024, "Image-guided Feature Extractor on the MUSTI dataset" (MediaEval 2023). Axes in comments:
B pairs, T text positions (wordpieces, special tokens included), L the text's full grid, N image tokens, H hidden size.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors.torch import load_file
from torch import Tensor, nn

from .attention import Backbone, bert_attention, vit_attention
from .config import MustiConfig
from .folder import check_tensors, file_in
from .fusion import Met, Opened, Words, make_fusion, place_weights
from .image_tower import ImageTokens, ImageTower
from .older import renamed_state
from .storage import restored
from .text_tower import TextTower


@dataclass(frozen=True)
class MustiInternals:
    """What happened inside one forward pass; dictionaries go by branch name.

    shares: {branch: [B, T]} how much of the picture each position got, 0..1 (``Fusion.shares``); met: {branch: Met};
    both empty without a gate. grid: {branch: (rows, columns) or None}, the places of the image tokens.
    image_attention: {ViT branch: [B, layers, heads, 1 + places, 1 + places]}, rows sum to 1.
    text_attention: {branch: [B, layers, heads, T, T]}, rows sum to 1 over unmasked positions; without a gate the same
    for every branch. image_vectors: {branch: [B, H]}, the image side of the cosine.
    feature_maps: {CNN branch: [B, C, rows, columns]}, part of the graph when gradients are on.
    """

    shares: dict[str, Tensor]
    met: dict[str, Met]
    grid: dict[str, tuple[int, int] | None]
    image_attention: dict[str, Tensor]
    text_attention: dict[str, Tensor]
    image_vectors: dict[str, Tensor]
    feature_maps: dict[str, Tensor]


@dataclass(frozen=True)
class MustiOutput:
    """The result of a forward pass, always of this one type.

    logits: [B], before temperature; similarities: [B, branches], cosines in -1..1; votes: [B, branches] and vote_bias:
    [], the terms the logit is the sum of; text_vectors: [B, branches, H], the text side of the cosines; internals: None
    unless asked for.
    """

    logits: Tensor
    similarities: Tensor
    votes: Tensor
    vote_bias: Tensor
    text_vectors: Tensor
    internals: MustiInternals | None = None

    @property
    def inside(self) -> MustiInternals:
        """``internals``, for those who asked for them. Raises ValueError for a pass that was made without."""
        if self.internals is None:
            raise ValueError("This pass was made without internals; ask for them.")
        return self.internals


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
        self.text = TextTower(config.text)
        hidden, grid = self.text.hidden, config.text_length
        taken = [b.name for b in config.branches if hasattr(nn.ModuleDict, b.name)]
        if taken:
            raise ValueError(f"A branch cannot be called {taken[0]!r}; choose another name.")
        self.branches = nn.ModuleDict({b.name: ImageTower(b, hidden, grid) for b in config.branches})
        self.fusion = make_fusion(config, hidden)
        self.grid_norm = nn.LayerNorm(grid)
        self.final_projection = nn.Linear(grid, 1)  # image side, over the token axis
        self.voting = nn.Linear(len(config.branches), 1)
        self.scale = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.prototypes = nn.Parameter(torch.randn(len(config.objects), hidden)) if config.objects else None
        self.none_logit = nn.Parameter(torch.tensor(config.naming_scale / 2))  # of a word that names nothing
        # of a picture that shows nothing known
        self.nothing_logit = nn.Parameter(torch.tensor(config.naming_scale / 2))
        self._start_gently()

    @classmethod
    def from_pretrained(cls, source: str | Path, *, strict: bool = True, **options: Any) -> "MustiModel":  # type: ignore[override]  # options as they are
        """As the mixin's (``revision``, ``token``, ``map_location`` ...), but nothing is left random unseen.

        Raises: RuntimeError for a missing or unexpected weight unless ``strict`` is False. For a folder that is told
            before anything is built; and ValueError for a config.json that has an unknown key, which the mixin would
            drop, or a value out of range, and for a damaged model.safetensors; FileNotFoundError where one of them is
            missing.
        """
        if not Path(source).is_dir():
            asked = {
                k: options[k]
                for k in ("revision", "token", "cache_dir", "local_files_only", "force_download")
                if k in options
            }
            folder = Path(hf_hub_download(str(source), "config.json", **asked)).parent
            options = {"config": MustiConfig.load(folder)} | options
        else:
            config = MustiConfig.load(source)
            if strict:
                with torch.device("meta"):  # shapes alone: an absurd config takes no memory
                    wanted = cls(config).state_dict()
                check_tensors(file_in(source, "model.safetensors"), wanted)
            options = {"config": config} | options  # as it was checked, and by the names of today
        return super().from_pretrained(source, strict=strict, **options)

    @classmethod
    def _load_as_safetensor(cls, model: "MustiModel", model_file: str, map_location: str, strict: bool) -> "MustiModel":  # type: ignore[override]
        """How the mixin reads the file: weights may be stored in fewer bits (``storage``)."""
        model.load_state_dict(renamed_state(restored(load_file(model_file, device=str(map_location)))), strict=strict)
        return model.eval()

    def _start_gently(self) -> None:
        """Image vector = half whole-picture token and half mean, equal votes."""
        with torch.no_grad():
            self.final_projection.weight.fill_(0.5 / (self.config.text_length - 1))
            self.final_projection.weight[0, 0] = 0.5
            self.final_projection.bias.zero_()
            self.voting.weight.fill_(1 / len(self.branches))
            self.voting.bias.zero_()

    # Pictures ---------------------------------------------------------------------------------------------------------

    @property
    def vits(self) -> dict[str, Backbone]:
        """{ViT branch: its backbone}."""
        return {n: b.backbone for n, b in self.branches.items() if b.is_vit}

    def tower(self, branch: str) -> ImageTower:
        """One branch's image tower."""
        return cast(ImageTower, self.branches[branch])

    @property
    def towers(self) -> dict[str, ImageTower]:
        """{branch: its image tower}."""
        return {n: self.tower(n) for n in self.branches}

    def encode_images(self, images: dict[str, Tensor]) -> dict[str, ImageTokens]:
        """{branch: [B, 3, S, S]} -> {branch: ImageTokens}."""
        return {n: self.encode_image(n, images[n]) for n in self.branches}

    def encode_image(self, branch: str, images: Tensor) -> ImageTokens:
        """One branch: [B, 3, S, S] -> ImageTokens."""
        return self.tower(branch)(images, self.fusion.norm, self.grid_norm)

    def image_vector(self, image: ImageTokens) -> Tensor:
        """Image side of the cosine: Linear(L, 1) over the tokens, laid on the text's full grid. -> [B, H]."""
        weight = self.final_projection.weight  # [1, L]
        if image.grid is not None:
            full = torch.tensor([self.config.text_length], device=weight.device)
            # The weights of the places, [1, N].
            weight = weight @ place_weights(image.tokens.shape[1], full, self.config.text_length)[0].to(weight.dtype)
        return (weight.to(image.tokens.dtype) @ image.tokens)[:, 0] + self.final_projection.bias

    # Text -------------------------------------------------------------------------------------------------------------

    def words(self, input_ids: Tensor, attention_mask: Tensor) -> Words:
        """Passages as the gate takes them; read without a picture where the gate asks for it."""
        text = self.text.embed(input_ids)
        words = Words(text, attention_mask)
        return (
            Words(text, attention_mask, self._encoded(self.fusion.fuse(text, None), attention_mask))
            if self.fusion.reads
            else words
        )

    def _encoded(self, states: Tensor, attention_mask: Tensor) -> Tensor:
        """Text encoder. [B, T, H] -> [B, T, H]; padding takes part or not, as the config says."""
        return self.text.encode(states, None if self.config.padding == "carry" else attention_mask)

    # The match --------------------------------------------------------------------------------------------------------

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
        with vit_attention(self.vits) as image_attention:
            encoded = self.encode_images(images)
        return self.match(encoded, input_ids, attention_mask, {n: a() for n, a in image_attention.items()})

    def match(
        self,
        encoded: dict[str, ImageTokens],
        input_ids: Tensor,
        attention_mask: Tensor,
        image_attention: dict[str, Tensor] | None = None,
        gate: Opened = "learned",
    ) -> MustiOutput:
        """Scores pairs of encoded pictures and passages; see ``match_words``."""
        return self.match_words(encoded, self.words(input_ids, attention_mask), image_attention, gate)

    def match_words(
        self,
        encoded: dict[str, ImageTokens],
        words: Words,
        image_attention: dict[str, Tensor] | None = None,
        gate: Opened = "learned",
    ) -> MustiOutput:
        """Scores pairs of encoded pictures and passages that are read already.

        One picture (tokens [1, N, H]) meets B passages, and one passage (one row of words) B pictures: the one row
        stands for all.

        Args:
            image_attention: given, internals are returned as well; the logits stay the same.
            gate: "learned", "shut" (the text is read without the picture) or "open" (every word alike), see
                ``Fusion.fuse``.
        """
        met = {n: self.fusion.meet(image, words) for n, image in encoded.items()} if self.fusion.gated else {}
        fused = [self.fusion.fuse(words.text, m, gate) for m in met.values() if gate != "shut"]
        vectors, attention = self._pooled(
            fused or [self.fusion.fuse(words.text, None)], words, image_attention is not None
        )
        if not fused:  # read once, whatever the branch
            vectors, attention = (vectors * len(encoded), attention * len(encoded))
        images = [self.image_vector(image) for image in encoded.values()]
        cosines = [F.cosine_similarity(t.float(), i.float(), dim=-1) for t, i in zip(vectors, images, strict=True)]
        similarities = torch.stack(cosines, dim=1)
        votes, vote_bias = similarities * self.vote_slopes(), self.vote_constant()
        text_vectors = torch.stack([v.expand(len(similarities), -1) for v in vectors], dim=1)
        internals = None
        if image_attention is not None:
            internals = MustiInternals(
                shares={n: self.fusion.shares(words, m) for n, m in met.items()},
                met=met,
                grid={n: i.grid for n, i in encoded.items()},
                image_attention=image_attention,
                text_attention=dict(zip(encoded, attention, strict=True)),
                image_vectors=dict(zip(encoded, images, strict=True)),
                feature_maps={n: i.feature_map for n, i in encoded.items() if i.feature_map is not None},
            )
        return MustiOutput(votes.sum(1) + vote_bias, similarities, votes, vote_bias, text_vectors, internals)

    def text_vectors_of(self, fused: Tensor, attention_mask: Tensor) -> Tensor:
        """Text side of the cosine from what the gate passes on: [B, T, H], masks [B or 1, T] -> [B, H]."""
        return self.text.pool(self._encoded(fused, attention_mask))

    def _pooled(self, fused: list[Tensor], words: Words, capture: bool) -> tuple[list[Tensor], list[Tensor]]:
        """Encoder and pooler, all branches in one batch: [B, T, H] each -> [B, H] each, and the attention maps if they
        are to be captured."""
        rows, count = len(fused[0]), len(fused)
        mask = words.mask if len(words.mask) == 1 else words.mask.repeat(count, 1)
        stacked = torch.cat(fused)
        if not capture:
            return list(self.text_vectors_of(stacked, mask).split(rows)), []
        with bert_attention(self.text.encoder, None if self.config.padding == "carry" else mask) as attention:
            vectors = self.text_vectors_of(stacked, mask)
        return list(vectors.split(rows)), list(attention().split(rows))

    def vote_slopes(self) -> Tensor:
        """What each branch's cosine is multiplied by in the logit, [branches]."""
        n = len(self.branches)
        learned = self.config.voting == "learned" and not self._single()
        weights = self.voting.weight[0] if learned else self.voting.weight.new_full((n,), 1 / n)  # else a mean vote
        return weights if self.config.logit == "published" else weights * self.scale

    def _single(self) -> bool:
        """The published one-branch model takes the cosine itself."""
        return len(self.branches) == 1 and self.config.logit == "published"

    def vote_constant(self) -> Tensor:
        """What the logit holds beside the branches' votes, []."""
        learned = self.config.voting == "learned" and not self._single()
        constant = self.voting.bias[0] if learned else self.bias.new_zeros(())
        return constant * self.scale + self.bias if self.config.logit == "affine" else constant

    # Naming -----------------------------------------------------------------------------------------------------------

    def name_text(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Which object each wordpiece names, read without any picture. -> logits [B, T, objects + 1], last = none."""
        return self.name_words(self.words(input_ids, attention_mask))

    def name_words(self, words: Words) -> Tensor:
        """The same for passages as the gate takes them."""
        read = words.read if words.read is not None else self._encoded(self.fusion.fuse(words.text, None), words.mask)
        return self._named(self.fusion.word_space(read), self.none_logit)

    def name_picture(self, image: ImageTokens) -> Tensor:
        """Which objects a picture shows, by one branch: each object's prototype looks for its places as a word does;
        without a meeting by content, the image vector is compared. -> logits [B, objects + 1], last = nothing known."""
        known = self.known_prototypes()
        if self.fusion.space is None or image.grid is None:
            return self._named(self.image_vector(image), self.nothing_logit)
        _, agreement = self.fusion.space.look(known[None], image.tokens)  # [B, objects]
        return self._with_none(self.config.naming_scale * agreement, self.nothing_logit)

    def name_vector(self, vector: Tensor) -> Tensor:
        """Cosine logits of vectors [..., H] to the object prototypes -> [..., objects]."""
        return (
            self.config.naming_scale
            * F.normalize(vector.float(), dim=-1)
            @ F.normalize(self.known_prototypes().float(), dim=-1).T
        )

    def _named(self, vector: Tensor, none: Tensor) -> Tensor:
        return self._with_none(self.name_vector(vector), none)

    @staticmethod
    def _with_none(logits: Tensor, none: Tensor) -> Tensor:
        return torch.cat([logits, none.to(logits.dtype).expand(*logits.shape[:-1], 1)], dim=-1)

    def known_prototypes(self) -> Tensor:
        """[objects, H]. Raises ValueError for weights without a naming head."""
        if self.prototypes is None:
            raise ValueError("These weights have no naming head: their config lists no objects.")
        return self.prototypes
