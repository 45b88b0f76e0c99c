"""TFRecord files and their messages, against tensorboard's writer and the protobuf package."""

import os
from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from tfrecord_files import sequence_example, video, write_tfrecord

from tag_core.errors import UnreadableInput
from tag_plugins_video.crc32c import crc32c
from tag_plugins_video.example_proto import frame_matrix, parse
from tag_plugins_video.tfrecord import masked, read_records

RECORDS = [b"", b"a", os.urandom(300), os.urandom(5000), b"end"]
names = st.text(max_size=5)
values = st.one_of(
    st.lists(st.binary(max_size=8), min_size=1, max_size=4),
    st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=4),
)


def test_the_checksums_of_rfc_3720():
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E


@pytest.mark.parametrize("length", [0, 1, 2047, 2048, 2049, 4096, 4097, 33_333, 65_536, 150_001])
def test_long_checksums_are_tensorboards(length):
    data = np.random.default_rng(length).bytes(length)
    assert masked(data) == masked_crc32c(data)


def test_records_are_what_tensorboard_wrote(tmp_path):
    assert list(read_records(write_tfrecord(tmp_path / "a.tfrecord", RECORDS))) == RECORDS


@given(st.dictionaries(names, values, max_size=4), st.dictionaries(names, st.lists(values, max_size=4), max_size=3))
def test_messages_are_what_protobuf_encoded(context, frames):
    data = sequence_example(context, frames)
    found = parse(data)
    assert found.context == context
    assert found.frames == frames
    assert parse(data, context_only=True).context == context


def test_numbers_that_are_not_packed_are_read_too():
    # context { feature { key "n" value { int64_list { value: 5 value: -1 } } } }, one tag for each number
    numbers = b"\x08\x05\x08" + b"\xff" * 9 + b"\x01"
    feature = b"\x1a" + bytes([len(numbers)]) + numbers
    entry = b"\x0a\x01n\x12" + bytes([len(feature)]) + feature
    features = b"\x0a" + bytes([len(entry)]) + entry
    assert parse(b"\x0a" + bytes([len(features)]) + features).context == {"n": [5, -1]}


def test_frames_are_a_matrix():
    rgb = np.arange(12, dtype=np.uint8).reshape(3, 4)
    frames = parse(video("a", [1], rgb, rgb[:, :2])).frames
    np.testing.assert_array_equal(frame_matrix(frames, "rgb", "a"), rgb)
    with pytest.raises(UnreadableInput, match="'depth' is missing"):
        frame_matrix(frames, "depth", "a")
    with pytest.raises(UnreadableInput, match="one byte string per frame"):
        frame_matrix({"rgb": [[b"ab"], [b"a"]]}, "rgb", "a")


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_cut_off_file_gives_its_whole_records_and_then_an_error(tmp_path, cut):
    path = write_tfrecord(tmp_path / "a.tfrecord", RECORDS)
    os.truncate(path, os.path.getsize(path) - cut)
    whole = RECORDS[:4] if cut <= 19 else RECORDS[:3]
    if cut == 19:  # exactly between two records: nothing shows it
        assert list(read_records(path)) == whole
        return
    records = read_records(path)
    found = list(islice(records, len(whole)))
    with pytest.raises(UnreadableInput, match=f"cut off within .*record {len(whole)}"):
        next(records)
    assert found == whole


@pytest.mark.parametrize(("at", "problem"), [(40, "data has"), (8, "length has"), (0, "length has")])
def test_a_changed_byte_is_found_by_the_checksums(tmp_path, at, problem):
    path = tmp_path / "a.tfrecord"
    write_tfrecord(path, [b"x" * 50] * 3)
    data = bytearray(path.read_bytes())
    data[66 + at] ^= 4  # in the second record
    path.write_bytes(data)
    records = read_records(str(path))
    assert next(records) == b"x" * 50
    with pytest.raises(UnreadableInput, match=f"record 1, byte .*{problem} a wrong checksum"):
        next(records)
