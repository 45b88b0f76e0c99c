"""Learn a video transformer without labels, by filling in masked tubes (VideoMAE)."""

from __future__ import annotations

from typing import cast

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tag_core.kinds import Backbone, Batch
from tag_plugins_video.models.vit import VideoViT, sine_positions
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, RGB, ClipEncoder, split_views


class MAE(ClipEncoder):
    """Masked video modelling (VideoMAE, NeurIPS 2022, arXiv 2203.12602).

    Tubes, the same places in all frames, are hidden; the backbone sees the other tubelets only, and a small decoder
    predicts the hidden ones' pixels. The loss is their mean squared error. Predicting gives ``embedding``, of the
    whole clip. Each of several views is a clip of its own.

    Args:
        backbone: ``video/vit``, or another with its ``tokens``, ``encode``, ``grid`` and ``size``.
        mask_ratio: share of the tubes that is hidden.
        decoder_dim: channels of the decoder's tokens; a multiple of 6 and of ``decoder_heads``.
        decoder_depth: blocks of the decoder.
        decoder_heads: attention heads of the decoder.
        normalize_targets: predict pixels minus the tubelet's mean, over its standard deviation, per channel.
        mean: of the normalisation, per channel of RGB in [0, 1].
        std: of the normalisation.
    """

    def __init__(
        self,
        backbone: Backbone,
        mask_ratio: float = 0.9,
        decoder_dim: int = 96,
        decoder_depth: int = 4,
        decoder_heads: int = 3,
        normalize_targets: bool = True,
        mean: RGB = KINETICS_MEAN,
        std: RGB = KINETICS_STD,
    ) -> None:
        if not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must lie between 0 and 1, got {mask_ratio}")
        if decoder_dim % 6 or decoder_dim % decoder_heads:
            raise ValueError(f"decoder_dim must be a multiple of 6 and of decoder_heads, got {decoder_dim}")
        if not hasattr(backbone, "tokens"):
            raise ValueError(f"{type(backbone).__name__} has no tokens to mask; use video/vit")
        super().__init__(backbone, mean, std)
        self.mask_ratio, self.normalize_targets = mask_ratio, normalize_targets
        size = cast(VideoViT, backbone).size
        self.decoder_embed = nn.Linear(backbone.feature_dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        self.decoder = nn.Sequential(*(Block(decoder_dim, decoder_heads, qkv_bias=True) for _ in range(decoder_depth)))
        self.decoder_norm = nn.LayerNorm(decoder_dim)
        self.to_pixels = nn.Linear(decoder_dim, 3 * size[0] * size[1] * size[2])
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        clips = self.prepare(split_views(batch["clip"]).flatten(0, 1))
        backbone = cast(VideoViT, self.backbone)
        grid = backbone.grid(clips)
        shown, hidden = tube_masks(len(clips), grid, self.mask_ratio, clips.device)
        encoded = backbone.encode(take(backbone.tokens(clips), shown))
        predicted = self.decode(encoded, shown, hidden, grid)
        targets = take(tubelets(clips, backbone.size), hidden)
        if self.normalize_targets:
            var, mean = torch.var_mean(targets, dim=2, keepdim=True)
            targets = (targets - mean) / (var + 1e-6).sqrt()
        return {"loss": (predicted.float() - targets.flatten(2)).square().mean()}

    def decode(self, encoded: Tensor, shown: Tensor, hidden: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Pixels of the hidden tubelets, [N, hidden, pixels * channels], from the shown ones' features."""
        tokens = self.decoder_embed(encoded)
        places = sine_positions(grid, tokens.shape[-1]).to(tokens).expand(len(tokens), -1, -1)
        tokens = torch.cat([tokens + take(places, shown), self.mask_token + take(places, hidden)], dim=1)
        decoded = self.decoder_norm(self.decoder(tokens))
        pixels: Tensor = self.to_pixels(decoded[:, shown.shape[1] :])
        return pixels


def tube_masks(count: int, grid: tuple[int, int, int], ratio: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Indices of tubelets that are shown and hidden, [count, t * places] each: the same places at all times.

    Of h * w places, round(ratio * h * w) are hidden, one at least, and one at least is shown.
    """
    t, places = grid[0], grid[1] * grid[2]
    number = min(max(round(ratio * places), 1), places - 1)
    order = torch.rand(count, places, device=device).argsort(dim=1)
    starts = places * torch.arange(t, device=device)[:, None]
    hidden, shown = (
        (part[:, None] + starts).flatten(1) for part in torch.split(order, [number, places - number], dim=1)
    )
    return shown, hidden


def take(values: Tensor, indices: Tensor) -> Tensor:
    """From [N, L, ...] what ``indices`` [N, K] name: [N, K, ...]."""
    return values[torch.arange(len(values), device=values.device)[:, None], indices]


def tubelets(clips: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Clips [N, C, T, H, W] cut up: [N, tubelets, pixels of one, C], time first."""
    count, channels = clips.shape[:2]
    sides = [n for side, length in zip(clips.shape[2:], size, strict=True) for n in (side // length, length)]
    parts = clips.reshape(count, channels, *sides).permute(0, 2, 4, 6, 3, 5, 7, 1)
    return parts.flatten(4, 6).flatten(1, 3)
