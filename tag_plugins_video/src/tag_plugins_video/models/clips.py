"""What the models of clips ask of their input."""

from __future__ import annotations

from torch import Tensor

from tag_core.errors import UserError


def check_clips(model: str, clips: Tensor, frames: int = 1, side: int = 1, channels: int = 3) -> None:
    """Refuse clips [N, C, T, H, W] of other than ``channels``, or of fewer frames or pixels than the model needs.

    Raises:
        UserError: naming the options of a recipe that change it.
    """
    found, (time, height, width) = clips.shape[1], clips.shape[2:]
    if found != channels:
        raise UserError(
            f"{model} takes clips of {channels} channels, these have {found} (pictures have 3, optical flow 2); "
            f"choose other data, or a backbone with channels = {found}"
        )
    if time < frames:
        raise UserError(
            f"{model} needs {frames} frames or more, got {time}; set data.train.clip_len={frames} (sampler 'dense') "
            f"or data.train.num_segments={frames} (sampler 'segments')"
        )
    if min(height, width) < side:
        raise UserError(
            f"{model} needs pictures of {side}x{side} or more, got {height}x{width}; "
            f"set larger sizes in data.train.transforms"
        )
