"""A plain video transformer: tubelets, joint space-time attention."""

from __future__ import annotations

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_plugins_video.models.clips import check_clips


class VideoViT(nn.Module):
    """Vision transformer on tubelets of a clip, as in VideoMAE (arXiv 2203.12602) and ViViT's model 1.

    A clip is cut into tubelets of ``tubelet`` frames of ``patch`` x ``patch`` pixels; each becomes a token with a
    fixed sine-cosine position in time, height and width, and every token attends to every other. Input
    [N, 3, T, H, W], T a multiple of ``tubelet``, H and W of ``patch``; features [N, dim], the mean over the
    normalised tokens. There are no statistics over the batch in it.

    Args:
        dim: channels of a token; a multiple of 6 and of ``heads``.
        depth: blocks.
        heads: attention heads.
        patch: height and width of a tubelet, in pixels.
        tubelet: frames of a tubelet.
    """

    def __init__(self, dim: int = 192, depth: int = 12, heads: int = 3, patch: int = 16, tubelet: int = 2) -> None:
        if min(dim, depth, heads, patch, tubelet) < 1 or dim % 6 or dim % heads:
            raise ValueError(f"dim must be a multiple of 6 and of heads, got {dim} and {heads}; all at least 1")
        super().__init__()
        self.feature_dim, self.size = dim, (tubelet, patch, patch)
        self.embed = nn.Conv3d(3, dim, kernel_size=self.size, stride=self.size)
        self.blocks = nn.Sequential(*(Block(dim, heads, qkv_bias=True) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        nn.init.xavier_uniform_(self.embed.weight.flatten(1))

    def forward(self, clips: Tensor) -> Tensor:
        return self.encode(self.tokens(clips)).mean(1)

    def tokens(self, clips: Tensor) -> Tensor:
        """Embedded tubelets with their positions, [N, t * h * w, dim], time first."""
        grid = self.grid(clips)
        maps = self.embed(clips)
        positions = sine_positions(grid, self.feature_dim).to(maps)
        tokens: Tensor = maps.flatten(2).transpose(1, 2) + positions
        return tokens

    def encode(self, tokens: Tensor) -> Tensor:
        """Tokens, or some of them, through the blocks: [N, L, dim]."""
        encoded: Tensor = self.norm(self.blocks(tokens))
        return encoded

    def grid(self, clips: Tensor) -> tuple[int, int, int]:
        """How many tubelets lie along time, height and width.

        Raises:
            UserError: a part of a tubelet would be left over, or these are no clips of three channels.
        """
        check_clips("video/vit", clips, frames=self.size[0], side=self.size[1])
        sides = clips.shape[2:]
        if any(side % size for side, size in zip(sides, self.size, strict=True)):
            t, h, w = sides
            tubelet = f"{self.size[0]} frames of {self.size[1]}x{self.size[2]}"
            raise UserError(f"video/vit: clips of {t} frames of {h}x{w} do not divide into tubelets of {tubelet}")
        t, h, w = (side // size for side, size in zip(sides, self.size, strict=True))
        return t, h, w


def sine_positions(grid: tuple[int, int, int], dim: int) -> Tensor:
    """Fixed positions [t * h * w, dim]: a third of the channels for each axis, half sines and half cosines.

    Channel i of an axis' n sines at place p is sin(p / 10000^(i/n)) (Vaswani et al., NeurIPS 2017).
    """
    rates = 10_000.0 ** -(torch.arange(dim // 6) / (dim // 6))
    axes = torch.meshgrid(*(torch.arange(side, dtype=torch.float32) for side in grid), indexing="ij")
    angles = [axis.flatten()[:, None] * rates for axis in axes]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)
