"""The image side: a timm backbone, and how its features become tokens that the text's grid can meet."""

from dataclasses import dataclass

import timm
import torch
from timm.layers import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.func import functional_call

from .attention import Backbone, has_class_token
from .config import MAX_ATTENTION, ImageBranchConfig


@dataclass(frozen=True)
class ImageTokens:
    """What a branch makes of a batch of pictures.

    tokens: [B, N, H]; with places, token 0 stands for the whole picture (class token, or the mean over the places) and
    the others are the places in raster order; grid: (rows, columns) of the places, or None where a token has no place
    (published axes); feature_map: [B, C, rows, columns] of a convolutional backbone, else None.
    """

    tokens: Tensor
    grid: tuple[int, int] | None
    feature_map: Tensor | None = None

    def float(self) -> "ImageTokens":
        """The same in float32."""
        return ImageTokens(
            self.tokens.float(), self.grid, None if self.feature_map is None else self.feature_map.float()
        )

    def select(self, index: Tensor) -> "ImageTokens":
        """The pictures at ``index`` [P]: pairs that share a picture share its encoding."""
        feature_map = None if self.feature_map is None else self.feature_map[index]
        return ImageTokens(self.tokens[index], self.grid, feature_map)


MAX_PLACES = 2500  # of a grid


def _backbone(config: ImageBranchConfig) -> Backbone:
    """timm's, with random weights. Raises ValueError for one that timm does not have or cannot make of these
    arguments."""
    if not timm.is_model(config.backbone):
        raise ValueError(f"timm has no architecture {config.backbone!r}; choose one that timm.list_models() names.")
    try:
        return timm.create_model(config.backbone, pretrained=False, num_classes=0, **config.backbone_args)
    except Exception as error:  # sizes that contradict each other fail anywhere in timm or torch
        raise ValueError(f"{config.backbone} cannot be made of its backbone_args ({_reason(error)}).") from error


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]


def _is_plain_vit(backbone: Backbone) -> bool:
    """Whether attention can be recomputed from the blocks' projections, and its mixture goes to the next projection as
    it is.

    By class: others have the same attributes and add a relative position bias, subtract a second attention, or turn
    queries and keys.
    """
    if type(backbone) not in (VisionTransformer, VisionTransformerDistilled):
        return False
    attentions = [getattr(block, "attn", None) for block in backbone.blocks]
    return bool(attentions) and all(
        type(a) is Attention
        and all(isinstance(m, nn.Identity) for m in (a.q_norm, a.k_norm, getattr(a, "norm", nn.Identity())))
        and getattr(a, "gate", None) is None
        for a in attentions
    )


class _Features(nn.Module):
    """A backbone's features as a module's forward, which is what ``functional_call`` calls."""

    backbone: Backbone

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] -> features."""
        return self.backbone.forward_features(images)


def _grid_of(backbone: Backbone, config: ImageBranchConfig) -> tuple[int, int]:
    """(rows, columns) of the places that a backbone makes of a picture of the branch's size. Shapes alone are worked
    out, nothing is computed.

    Raises: ValueError for a backbone that fails at that size, or whose features are neither a plain ViT's tokens nor a
        map.
    """
    model, was_training = _Features(backbone), backbone.training
    shapes = {name: value.to("meta") for name, value in (*model.named_parameters(), *model.named_buffers())}
    model.eval()
    try:
        with torch.device("meta"), torch.no_grad():
            features = functional_call(model, shapes, (torch.zeros(2, 3, config.image_size, config.image_size),))
    except Exception as error:  # a size it was not made for fails anywhere in timm or torch
        raise ValueError(
            f"{config.backbone} does not take pictures of {config.image_size} px ({_reason(error)}); check "
            "image_size and img_size."
        ) from error
    finally:
        model.train(was_training)
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    last = getattr(backbone, "output_fmt", "NCHW") == "NHWC"
    if len(shape) == 4 and backbone.num_features == shape[-1 if last else 1]:
        grid = (shape[1], shape[2]) if last else (shape[2], shape[3])
    elif _is_plain_vit(backbone):
        grid, heads = _vit_grid(backbone, config.image_size), sum(block.attn.num_heads for block in backbone.blocks)
        if shape[1] != backbone.num_prefix_tokens + grid[0] * grid[1] or heads * shape[1] ** 2 > MAX_ATTENTION:
            raise ValueError(
                f"{config.backbone} makes {shape[1]} tokens of a picture, which are in no grid or too many; choose "
                "a smaller image_size."
            )
    else:
        raise ValueError(
            f"{config.backbone} is not a plain ViT (q/k norm, rotary positions or another attention), nor are its "
            "features a map; choose another."
        )
    if not 1 <= grid[0] * grid[1] <= MAX_PLACES:
        raise ValueError(
            f"{config.backbone} makes {grid[0]} x {grid[1]} places of a picture; the limit is {MAX_PLACES}, choose "
            "a smaller image_size."
        )
    return grid


def _vit_grid(vit: Backbone, side: int) -> tuple[int, int]:
    """(rows, columns) of the patches; one made for any size has the picture's."""
    rows, columns = (
        vit.patch_embed.dynamic_feat_size((side, side)) if vit.dynamic_img_size else vit.patch_embed.grid_size
    )
    return int(rows), int(columns)


class ImageTower(nn.Module):
    """A backbone and its projection to the hidden size.

    Natural axes: channels -> features; the places stay tokens. Published axes (as the authors' code has them): a CNN's
    channels become the tokens and its places the features; a Swin's places are mixed into tokens.

    Raises: ValueError for a backbone that cannot be made, does not take pictures of ``image_size``, or is neither a
        plain ViT (another's attention could not be shown) nor one whose features are a map; and for a ViT or Swin of
        published axes that is not as wide as the text.
    """

    backbone: Backbone

    def __init__(self, config: ImageBranchConfig, hidden: int, text_length: int) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config)
        self.grid = _grid_of(self.backbone, config)
        if config.norm_eps is not None:
            for module in self.backbone.modules():
                if isinstance(module, nn.LayerNorm):
                    module.eps = config.norm_eps
        self.is_vit = _is_plain_vit(self.backbone)
        channels = self.backbone.num_features
        if config.axes == "natural":
            as_it_is = self.is_vit and channels == hidden and not config.project
            self.projection: nn.Module = (
                nn.Identity() if as_it_is else nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden))
            )
        elif self.is_vit:
            if channels != hidden:
                raise ValueError("A ViT with published axes has the text's hidden size.")
        else:
            places = self.grid[0] * self.grid[1]
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
        """The backbone alone: [B, 3, S, S] -> ViT [B, prefix + places, C] (prefix: class token and registers, if any),
        others [B, C, rows, columns]."""
        return self.backbone.forward_features(images) if self.is_vit else self._feature_map(images)

    def to_tokens(self, features: Tensor, hidden_norm: nn.LayerNorm, grid_norm: nn.LayerNorm) -> ImageTokens:
        """Features -> tokens; apart from ``features``, so that a frozen backbone's features can be kept and used
        again."""
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
        places = features[:, prefix:]
        if places.shape[1] != self.grid[0] * self.grid[1]:
            raise ValueError(
                f"The picture has {places.shape[1]} patches and the branch {self.grid[0]} x {self.grid[1]}; give "
                "image_size px."
            )
        # The prefix is the class token, if there is one, and registers, which are left out.
        whole = features[:, :1] if has_class_token(self.backbone) else places.mean(1, keepdim=True)
        tokens = torch.cat([whole, places], dim=1)
        if self.config.axes == "natural":
            tokens = self.projection(tokens)
        return ImageTokens(tokens, self.grid)
