"""The restricted unpickler against ``pickle`` itself, and against files that attack it."""

import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tag_core.errors import UnreadableInput
from tag_plugins_video.unpickle import MAX_DEPTH, PickleFile, load, loads

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
keys = st.text() | st.binary() | st.integers()
plain = st.recursive(
    scalars | st.sets(keys, max_size=4) | st.frozensets(keys, max_size=4),
    lambda inner: st.lists(inner, max_size=5) | st.tuples(inner, inner) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=20,
)
numbers = arrays.arrays(
    st.sampled_from(["u1", "<i4", ">i8", "<f4", "f8", "?", "c8", "S3", "U2"]), arrays.array_shapes(min_dims=0)
)


class Attack:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@given(value=plain, protocol=st.integers(0, 5))
def test_plain_values_are_what_pickle_reads(value, protocol):
    assert loads(pickle.dumps(value, protocol)) == value


@given(array=numbers, protocol=st.integers(0, 5), fortran=st.booleans())
def test_arrays_are_what_pickle_reads(array, protocol, fortran):
    array = np.asfortranarray(array) if fortran else array
    found = loads(pickle.dumps({"a": array}, protocol))["a"]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def test_the_writable_copies_of_arrays_are_ones_own():
    data = pickle.dumps(np.zeros(3))
    loads(data)[0] = 1
    assert loads(data).tolist() == [0, 0, 0]


def test_strings_of_python_2_are_bytes():
    # As Python 2 pickles {'video': 'SjJ3\xff', 'label': [1L]}, protocols 0 and 2.
    assert loads(b"(dp0\nS'video'\np1\nS'SjJ3\\xff'\np2\nsS'label'\np3\n(lp4\nL1L\nas.") == {
        b"video": b"SjJ3\xff",
        b"label": [1],
    }
    binary = b"\x80\x02}q\x00(U\x05videoq\x01U\x05SjJ3\xffq\x02U\x05labelq\x03]q\x04\x8a\x01\x01au."
    assert loads(binary) == pickle.loads(binary, encoding="bytes") == {b"video": b"SjJ3\xff", b"label": [1]}


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_that_pickle_would_run_is_refused(tmp_path, protocol):
    data = pickle.dumps([1, Attack(tmp_path / "owned")], protocol)
    with pytest.raises(UnreadableInput, match=r"names '\w+\.mkdir'; only plain data is read"):
        loads(data, "a.pkl")
    assert not (tmp_path / "owned").exists()
    pickle.loads(data)  # the same bytes do run code
    assert (tmp_path / "owned").is_dir()


class Forged:
    """An array of objects whose pointers are bytes of the file: numpy believes the flags (0) of a pickled dtype."""

    def __init__(self, *made):
        self.made = made

    def __reduce__(self):
        return self.made


FIELDS = (3, "|", None, ("f",), {"f": (np.dtype("O"), 0)}, 8, 1, 0)
POINTERS = (1, (1,), Forged(np.dtype, ("V8", False, True), FIELDS), False, b"A" * 8)


def test_bytes_that_numpy_would_take_for_pointers_are_refused():
    data = pickle.dumps(Forged(np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"), POINTERS), 2)
    with pytest.raises(UnreadableInput, match="an array of type 'V8'"):
        loads(data)


@pytest.mark.parametrize(
    "data",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"(ios\nsystem\nS'true'\n.",
        b"(cos\nsystem\nS'true'\no.",
        b"\x80\x02cos\nsystem\n)\x81.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"cnumpy\nndarray\n.",
        b"cnumpy\nndarray\n(I1000000\ntR.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        pickle.dumps(np.array([object], dtype=object)),
        pickle.dumps(np.zeros(2, dtype=[("a", "i4")])),
        pickle.dumps(Path("a")),
        b"}}b.",
    ],
)
def test_whatever_is_no_plain_data_is_refused(data):
    with pytest.raises(UnreadableInput, match="not a pickle of plain data"):
        loads(data)


def nested(opcodes, depth):
    return b"]" + opcodes * depth + b"."


BOMBS = {
    "a length beyond the file": b"\x80\x04\x8e" + struct.pack("<Q", 2**60) + b"x.",
    "an integer of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\0" * 2000 + b".",
    "a decimal of a million digits": b"I" + b"9" * 10**6 + b"\n.",
    "a deep tuple": nested(b"\x85", 20_000),
    "a deep tuple as a key": b"})" + b"\x85" * 20_000 + b"Ns.",
    "a deep list": b"]" + b"]" * 20_000 + b"a" * 20_000 + b".",
    "a list in itself": b"]q\x00h\x00a.",
    "a dict in itself": b"}q\x00K\x01h\x00s.",
    "2**60 values": nested(b"2\x86", 60),
    "an array of a terabyte": pickle.dumps(np.zeros(2, "u1"), 2).replace(
        b"K\x02\x85", b"\x8a\x06" + b"\0" * 5 + b"\x01\x85"
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(name):
    data = BOMBS[name]
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableInput):
            loads(data)
        assert tracemalloc.get_traced_memory()[1] < 5e6 + 500 * len(data)
    finally:
        tracemalloc.stop()


def test_a_far_place_in_the_memo_costs_nothing():
    data = b"\x80\x02]r\xff\xff\xff\x7fj\xff\xff\xff\x7f\x86."  # pickle.loads would reserve 32 GB for it
    tracemalloc.start()
    assert loads(data) == ([], [])
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_containers_may_be_as_deep_as_the_limit():
    value = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert loads(pickle.dumps(value)) == value
    with pytest.raises(UnreadableInput, match=f"{MAX_DEPTH} deep"):
        loads(pickle.dumps([value]))


@pytest.mark.parametrize("protocol", range(6))
def test_long_strings_and_arrays_stay_in_the_file_until_asked_for(tmp_path, protocol):
    records = [{"id": str(i), "a": np.full((50, 40), i, np.uint8), "b": bytes([i]) * 2000} for i in range(5)]
    path = tmp_path / "records.pkl"
    path.write_bytes(pickle.dumps(records, protocol))
    with PickleFile(path) as file:
        assert [record["id"] for record in file.tree] == list("01234")
        assert not isinstance(file.tree[3]["a"], np.ndarray)
        one = file.read(file.tree[3])
    np.testing.assert_array_equal(one["a"], records[3]["a"])
    assert one["b"] == records[3]["b"]
    assert load(path)[4]["b"] == records[4]["b"]


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_or_missing_file_is_unreadable(tmp_path, content):
    path = tmp_path / "a.pkl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UnreadableInput, match=r"a\.pkl: (an empty file|cannot be opened)"):
        load(path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_the_real_record_of_youtube_8m_is_what_pickle_reads():
    path = SHARED / "yt8m" / "yt8m_frame_example.pkl"
    expected = pickle.load(io.BytesIO(path.read_bytes()), encoding="bytes")
    found = load(path)
    assert found.keys() == expected.keys()
    assert (found[b"video"], found[b"label"], found[b"nframes"]) == (b"SjJ3", [11], 170)
    for name in (b"feature", b"audio"):
        np.testing.assert_array_equal(found[name], expected[name])
