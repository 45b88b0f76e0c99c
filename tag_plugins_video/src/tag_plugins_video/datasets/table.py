"""Videos listed in a table with named columns."""

from __future__ import annotations

from tag_core.kinds import Transform
from tag_core.media.sampling import OutOfBound
from tag_core.media.sources import list_table
from tag_plugins_video.datasets.base import ClipDataset, Sampler, SamplerName


class VideoTable(ClipDataset):
    """Videos listed in a CSV or TSV file with a header, or in JSON Lines.

    Args:
        source: the table, or several; ``.csv``, ``.tsv``, or anything else for JSON Lines.
        labelled: False takes files, folders or patterns without labels.
        path_column: column with the video's path.
        label_column: column with its label, an integer from 0 or a name.
        root: folder that the paths are relative to; default: the table's.
        label_map: file of class names, one a line in index order or ``name index``.
        multi_label: several labels a row: a list in JSON, separated by ``;`` in CSV.
        classes: names in index order; default: from the table.
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
        path_column: str = "path",
        label_column: str = "label",
        root: str | None = None,
        label_map: str | None = None,
        multi_label: bool = False,
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
        if labelled:
            listing = list_table(source, path_column, label_column, root, classes, label_map, multi_label)
        else:
            listing = self.unlabelled(source, classes)
        frames = Sampler(sampler, num_segments, clip_len, frame_interval, num_clips, random, out_of_bound)
        super().__init__(listing, frames, short_side, transforms, labelled, multi_label)
