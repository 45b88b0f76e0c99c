"""Every reader of files from outside, given any bytes and damaged files: a result or a Tag error, nothing else."""

import csv
import io
import json
import pickle
import string
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tfrecord_files import video, write_tfrecord

from tag_core.errors import TagError, UnreadableInput
from tag_core.media.sources import list_file, list_table, read_label_map
from tag_plugins_video.datasets.kinetics_pickle import KineticsPickle
from tag_plugins_video.datasets.records import listed_files, open_lists
from tag_plugins_video.datasets.youtube8m import YouTube8M, rgb_scale
from tag_plugins_video.example_proto import frame_matrix, parse
from tag_plugins_video.flow_store import FlowStore, write_store
from tag_plugins_video.tfrecord import read_records
from tag_plugins_video.unpickle import loads

FRAMES = np.arange(12, dtype=np.uint8).reshape(3, 4)
RECORD = {b"video": b"id", "label": [1, 2], "feature": FRAMES, "audio": FRAMES, "nframes": 3, "more": (1.5, {2})}
LIST = "# clips\na.mp4 0\nfolder with blanks/b.mp4 1\nc.mp4\t2\n"
ROWS = [{"path": "a.mp4", "label": "x;y"}, {"path": 'b,"\n.mp4', "label": "y"}, {"path": "c.mp4", "label": "3"}]


def jpeg(size):
    file = io.BytesIO()
    Image.new("RGB", size).save(file, "JPEG")
    return file.getvalue()


def table(path, delimiter):
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label"], delimiter=delimiter)
        writer.writeheader()
        writer.writerows(ROWS)


def flow(path):
    write_store(path, np.zeros((4, 6, 2), np.uint8), [np.ones((4, 6, 2), np.uint8)], {"fps": 25, "bound": 15})


def clips(path, protocol=2):
    path.write_bytes(pickle.dumps((b"id", 1, [jpeg((6, 4))] * 3), protocol))


def read_samples(data):
    for index in range(len(data)):
        try:
            data[index]
        except UnreadableInput as error:
            assert error.source == data.key(index)  # noqa: PT017 (a record of its own, and the run goes on)


def read_flow(path):
    with FlowStore(path) as store:
        store.frames([0, 1])


def read_message(path):
    message = Path(path).read_bytes()
    parse(message, context_only=True)
    frame_matrix(parse(message).frames, "rgb", path)


READERS = {  # how a sound file is written, and read
    "pickle": (lambda path: path.write_bytes(pickle.dumps(RECORD, 2)), lambda path: loads(Path(path).read_bytes())),
    "pickle 0": (lambda path: path.write_bytes(pickle.dumps(RECORD, 0)), lambda path: loads(Path(path).read_bytes())),
    "pickle 5": (lambda path: path.write_bytes(pickle.dumps(RECORD, 5)), lambda path: loads(Path(path).read_bytes())),
    "tfrecord": (lambda path: write_tfrecord(path, [b"x" * 9, b"", b"y"]), lambda path: list(read_records(path))),
    "example": (lambda path: path.write_bytes(video("abc", [1, 300], FRAMES, FRAMES)), read_message),
    "youtube8m pickle": (
        lambda path: path.write_bytes(pickle.dumps([RECORD, RECORD], 2)),
        lambda path: read_samples(YouTube8M(path, num_classes=4)),
    ),
    "youtube8m tfrecord": (
        lambda path: write_tfrecord(path, [video("a", [1], FRAMES, FRAMES)] * 2),
        lambda path: read_samples(YouTube8M(YouTube8M.expand([path]), labelled=False)),
    ),
    "youtube8m list": (
        lambda path: path.write_bytes(b"a.pkl\nb.tfrecord\n"),
        lambda path: read_samples(YouTube8M(path, num_classes=4)),
    ),
    "kinetics pickle": (clips, lambda path: read_samples(KineticsPickle([path], num_segments=2))),
    "kinetics pickle 4": (
        lambda path: clips(path, 4),
        lambda path: read_samples(KineticsPickle([path], labelled=False, short_side=3)),
    ),
    "kinetics list": (
        lambda path: path.write_bytes(b"a.pkl\n./b/c.pkl\n"),
        lambda path: read_samples(KineticsPickle(path)),
    ),
    "listed files": (lambda path: path.write_bytes(b"a.pkl\n\nb.pkl\n"), listed_files),
    "opened lists": (lambda path: path.write_bytes(b"a.pkl\n\nb.pkl\n"), open_lists),
    "eigenvalues": (lambda path: np.save(path, np.ones((1024, 1), np.float32)), lambda path: rgb_scale(path)),
    "video list": (lambda path: path.write_text(LIST), list_file),
    "video list of names": (
        lambda path: path.write_text("a.mp4 x y\nb.mp4 y\n"),
        lambda path: list_file(path, multi_label=True),
    ),
    "frame folder list": (
        lambda path: path.write_text("a 9 0\nb 3 1\n"),
        lambda path: list_file(path, num_frames=True),
    ),
    "video list and its map": (lambda path: path.write_text(LIST), lambda path: list_file(path, label_map=path)),
    "table.csv": (lambda path: table(path, ","), lambda path: list_table(path, multi_label=True)),
    "table.tsv": (lambda path: table(path, "\t"), list_table),
    "table.jsonl": (
        lambda path: path.write_text("\n".join(map(json.dumps, ROWS))),
        lambda path: list_table(path, multi_label=True),
    ),
    "label map": (lambda path: path.write_text("a b 0\nc 2\nd 1\n"), read_label_map),
    "flow": (flow, read_flow),
}

text = st.text(string.printable + "\0\ufeff²٣é", max_size=60).map(lambda value: value.encode("utf-8", "replace"))
piece = st.binary(max_size=4) | st.sampled_from([b"9" * 20, b"-", b"\n", b"\t", b'"', b"\0", b"{", b"[", b"\xff" * 9])


@st.composite
def damaged(draw, sound):
    """A sound file with up to four places flipped, cut out or filled, and maybe its end cut off."""
    content = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.sampled_from([0, 1, 1, 2, 9]))] = draw(piece)
    return bytes(content[: draw(st.none() | st.integers(0, len(content)))])


fast = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def check(read, path, content):
    path.write_bytes(content)
    try:
        read(str(path))
    except TagError as error:
        assert str(error)  # noqa: PT017


@pytest.fixture(params=READERS)
def reader(request, tmp_path):
    write, read = READERS[request.param]
    path = tmp_path / request.param.replace(" ", "-")
    if request.param == "eigenvalues":
        path = path.with_suffix(".npy")
    write(path)
    return read, path, path.read_bytes()


def test_sound_files_are_read(reader):
    read, path, _ = reader
    read(str(path))


@fast
@given(content=st.binary(max_size=80) | text)
def test_any_bytes_give_a_result_or_a_tag_error(reader, content):
    check(*reader[:2], content)


@fast
@given(data=st.data())
def test_damaged_files_give_a_result_or_a_tag_error(reader, data):
    read, path, sound = reader
    check(read, path, data.draw(damaged(sound)))
