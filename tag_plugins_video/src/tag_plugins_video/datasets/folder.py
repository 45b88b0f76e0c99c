"""Videos sorted into one folder per class."""

from __future__ import annotations

from tag_core.kinds import Transform
from tag_core.media.sampling import OutOfBound
from tag_core.media.sources import list_folders
from tag_plugins_video.datasets.base import ClipDataset, Sampler, SamplerName


class VideoFolder(ClipDataset):
    """Videos in one folder per class: ``source/<class>/**/<video>``.

    Args:
        source: the folder that holds the class folders; several share their classes.
        labelled: False takes files, folders or patterns without labels.
        classes: names in index order; default: the class folders, sorted.
        sampler: 'segments' (sparse, one snippet per equal part), 'dense' (clips of equally spaced
            frames) or 'paddle' (as Paddle's video library v1).
        num_segments: of 'segments' and 'paddle': equal parts of the video.
        clip_len: frames per snippet of a segment, or per clip of 'dense'.
        frame_interval: of 'dense': step from frame to frame.
        num_clips: clips taken from each video, as views of it.
        random: choose frames at random (training), else centred or evenly spread.
        out_of_bound: of 'dense': what follows the last frame of a short video.
        short_side: let the decoder resize to this short side, in pixels.
        transforms: applied in order to uint8 [..., T, C, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        classes: list[str] | None = None,
        sampler: SamplerName = "segments",
        num_segments: int = 8,
        clip_len: int = 1,
        frame_interval: int = 1,
        num_clips: int = 1,
        random: bool = False,
        out_of_bound: OutOfBound = "loop",
        short_side: int | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        listing = list_folders(source, classes=classes) if labelled else self.unlabelled(source, classes)
        frames = Sampler(sampler, num_segments, clip_len, frame_interval, num_clips, random, out_of_bound)
        super().__init__(listing, frames, short_side, transforms, labelled)
