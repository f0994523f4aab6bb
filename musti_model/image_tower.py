"""The image side: a timm backbone, and how its features become tokens that the text's grid can meet."""

from dataclasses import dataclass

import timm
import torch
from torch import Tensor, nn

from .config import ImageBranchConfig


@dataclass(frozen=True)
class ImageTokens:
    """What a branch makes of a batch of pictures.

    tokens: [B, N, H]; with places, token 0 stands for the whole picture (class token, or the mean over the places) and the
    others are the places in raster order; grid: (rows, columns) of the places, or None where a token has no place
    (published axes); feature_map: [B, C, rows, columns] of a convolutional backbone, else None.
    """

    tokens: Tensor
    grid: tuple[int, int] | None
    feature_map: Tensor | None = None

    def float(self) -> "ImageTokens":
        """The same in float32."""
        return ImageTokens(self.tokens.float(), self.grid, None if self.feature_map is None else self.feature_map.float())

    def select(self, index: Tensor) -> "ImageTokens":
        """The pictures at ``index`` [P]: pairs that share a picture share its encoding."""
        feature_map = None if self.feature_map is None else self.feature_map[index]
        return ImageTokens(self.tokens[index], self.grid, feature_map)


def _is_plain(vit: nn.Module) -> bool:
    """Whether queries and keys are used as they leave the projection, so that attention can be recomputed from it."""
    blocks = getattr(vit, "blocks", [])
    attentions = [getattr(b, "attn", None) for b in blocks]
    plain = all(hasattr(a, "qkv") and isinstance(getattr(a, "q_norm", None), nn.Identity) for a in attentions)
    return bool(attentions) and plain and getattr(vit, "rope", None) is None and hasattr(vit.patch_embed, "grid_size")


class ImageTower(nn.Module):
    """A backbone and its projection to the hidden size.

    Natural axes: channels -> features; the places stay tokens. Published axes (REFERENCE, the published model): a CNN's channels
    become the tokens and its places the features; a Swin's places are mixed into tokens.

    Raises: ValueError for a ViT that is not plain (its attention could not be shown), and for a ViT or Swin of published axes that is not as
    wide as the text.
    """

    def __init__(self, config: ImageBranchConfig, hidden: int, text_length: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = timm.create_model(config.backbone, pretrained=False, num_classes=0, **config.backbone_args)
        if config.norm_eps is not None:
            for module in self.backbone.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = config.norm_eps
        self.is_vit = hasattr(self.backbone, "num_prefix_tokens") and hasattr(self.backbone, "patch_embed")
        self.is_vit = self.is_vit and getattr(self.backbone, "output_fmt", "NCHW") != "NHWC"
        if self.is_vit and not _is_plain(self.backbone):
            raise ValueError(f"{config.backbone} is not a plain ViT (q/k norm, rotary positions or another attention); choose a plain one.")
        channels = self.backbone.num_features
        if config.axes == "natural":
            as_it_is = self.is_vit and channels == hidden and not config.project
            self.projection = nn.Identity() if as_it_is else nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden))
        elif self.is_vit:
            if channels != hidden:
                raise ValueError("A ViT with published axes has the text's hidden size.")
        else:
            with torch.no_grad():
                probe = self._feature_map(torch.zeros(1, 3, config.image_size, config.image_size))
            places = probe.shape[2] * probe.shape[3]
            if self.is_swin and channels != hidden:
                raise ValueError("A Swin with published axes has the text's hidden size.")
            if self.is_swin:
                self.places_to_grid = nn.Linear(places, text_length)
            else:
                self.channels_to_grid = nn.Linear(channels, text_length)
                self.places_to_hidden = nn.Linear(places, hidden)

    @property
    def is_swin(self) -> bool:
        """Whether the backbone's features are a map with channels last, as Swin's."""
        return getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"

    def _feature_map(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> [B, C, rows, columns], for backbones whose features are a map."""
        learning = [m for m in self.backbone.modules() if m.training] if images.shape[0] == 1 else []
        for module in learning:  # batch statistics of one picture would be meaningless
            module.training = False
        try:
            features = self.backbone.forward_features(images)
        finally:
            for module in learning:
                module.training = True
        return features.permute(0, 3, 1, 2) if self.is_swin else features

    def forward(self, images: Tensor, hidden_norm: nn.LayerNorm, grid_norm: nn.LayerNorm) -> ImageTokens:
        """Encodes pictures.

        Args:
            images: [B, 3, S, S], normalised with the branch's mean and std.
            hidden_norm, grid_norm: the model's shared LayerNorms over hidden size and text grid (published axes only).
        """
        return self.to_tokens(self.features(images), hidden_norm, grid_norm)

    def features(self, images: Tensor) -> Tensor:
        """The backbone alone: [B, 3, S, S] -> ViT [B, 1 + places, C] (registers too, if any), others [B, C, rows, columns]."""
        return self.backbone.forward_features(images) if self.is_vit else self._feature_map(images)

    def to_tokens(self, features: Tensor, hidden_norm: nn.LayerNorm, grid_norm: nn.LayerNorm) -> ImageTokens:
        """Features -> tokens; apart from ``features``, so that a frozen backbone's features can be kept and used again."""
        if self.is_vit:
            return self._vit_tokens(features)
        feature_map = features
        if torch.is_grad_enabled() and not feature_map.requires_grad:
            feature_map.requires_grad_()  # frozen backbones still give Grad-CAM its gradient
        rows, columns = feature_map.shape[2:]
        places = feature_map.flatten(2)  # [B, C, places]
        if self.config.axes == "natural":
            tokens = places.transpose(1, 2)
            tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], dim=1)  # [B, 1 + places, C]
            return ImageTokens(self.projection(tokens), (rows, columns), None if self.is_swin else feature_map)
        if self.is_swin:
            tokens = grid_norm(self.places_to_grid(places)).transpose(1, 2)  # [B, C, places] -> [B, L, C]
            return ImageTokens(tokens, None)
        tokens = grid_norm(self.channels_to_grid(places.transpose(1, 2)))  # [B, places, L]
        tokens = hidden_norm(self.places_to_hidden(tokens.transpose(1, 2)))  # [B, L, H]
        return ImageTokens(tokens, None, feature_map)

    def _vit_tokens(self, features: Tensor) -> ImageTokens:
        prefix = self.backbone.num_prefix_tokens
        whole = features[:, :1] if prefix else features.mean(1, keepdim=True)  # class token; registers are left out
        tokens = torch.cat([whole, features[:, prefix:]], dim=1)
        if self.config.axes == "natural":
            tokens = self.projection(tokens)
        return ImageTokens(tokens, tuple(self.backbone.patch_embed.grid_size))
