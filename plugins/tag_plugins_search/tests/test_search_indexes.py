"""The index components, against faiss called directly and plain numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss as untyped
import numpy as np
import numpy.typing as npt
import pytest

from tag_plugins_search.hidden import search_around
from tag_plugins_search.indexes.flat import Flat
from tag_plugins_search.indexes.hnsw import HNSW
from tag_plugins_search.indexes.ivf_pq import IVFPQ
from tag_plugins_search.rows import header, map_vectors

faiss: Any = untyped
faiss.omp_set_num_threads(1)  # several wait for each other in turns when the processors are busy
COUNT, DIMENSION = 3000, 24
RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((COUNT, DIMENSION)).astype(np.float32)
QUERIES = RNG.standard_normal((40, DIMENSION)).astype(np.float32)


def vectors_file(folder: Path, vectors: npt.NDArray[np.float32] = VECTORS) -> Path:
    path = folder / f"vectors-{len(vectors)}.faiss"
    path.write_bytes(header(*vectors.shape) + vectors.tobytes())
    return path


def saved_and_loaded(index: Any, folder: Path) -> Any:
    index.add(VECTORS)
    index.save(folder / "index.faiss")
    index.load(folder / "index.faiss", vectors_file(folder))
    return index


def test_the_vectors_file_is_byte_for_byte_a_flat_index_of_faiss(tmp_path: Path) -> None:
    flat = faiss.IndexFlatL2(DIMENSION)
    flat.add(VECTORS)
    faiss.write_index(flat, str(tmp_path / "theirs"))
    path = vectors_file(tmp_path)
    assert path.read_bytes() == (tmp_path / "theirs").read_bytes()
    np.testing.assert_array_equal(map_vectors(path, COUNT, DIMENSION), VECTORS)


def test_flat_is_exact_and_its_distances_are_not_rounded_by_subtraction(tmp_path: Path) -> None:
    far = VECTORS + 1000  # |q|^2 + |v|^2 - 2qv loses all digits here
    index = Flat()
    index.add(far)
    distances, numbers = index.search(far[:30], 3)
    assert (numbers[:, 0] == np.arange(30)).all()
    assert (distances[:, 0] == 0).all()
    expected = np.square(far[numbers].astype(np.float64) - far[:30, None]).sum(2)
    np.testing.assert_allclose(distances, expected, rtol=1e-5)


def test_flat_gives_equal_distances_in_the_order_of_their_numbers() -> None:
    index = Flat()
    index.add(np.repeat(VECTORS[:5], 4, axis=0))
    distances, numbers = index.search(VECTORS[:5], 4)
    assert (numbers == np.arange(20).reshape(5, 4)).all()
    assert (distances == 0).all()


def test_hnsw_answers_as_faiss_does_and_its_file_holds_no_vectors(tmp_path: Path) -> None:
    theirs = faiss.IndexHNSWFlat(DIMENSION, 8)
    theirs.hnsw.efConstruction, theirs.hnsw.efSearch = 20, 50
    theirs.add(VECTORS)
    index = saved_and_loaded(HNSW(m=8, ef_construction=20, ef_search=50), tmp_path)
    for found, expected in zip(index.search(QUERIES, 10), theirs.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(found, expected)
    faiss.write_index(theirs, str(tmp_path / "whole"))
    saved = (tmp_path / "whole").stat().st_size - (tmp_path / "index.faiss").stat().st_size
    assert saved >= VECTORS.nbytes


def test_more_candidates_find_more_in_a_graph() -> None:
    exact = np.square(VECTORS[None] - QUERIES[:, None]).sum(2).argmin(1)
    recall = []
    for ef_search in (4, 1000):
        index = HNSW(m=8, ef_construction=20, ef_search=ef_search)
        index.add(VECTORS)
        recall.append((index.search(QUERIES, 1)[1][:, 0] == exact).mean())
    assert recall[0] + 0.2 < recall[1]


@pytest.mark.parametrize("bits", [4, 8])
def test_ivf_pq_answers_as_faiss_does(bits: int, tmp_path: Path) -> None:
    options = {"lists": 10, "probes": 4, "pq_size": 8, "pq_bits": bits}
    index = saved_and_loaded(IVFPQ(**options, rerank=0), tmp_path)
    theirs = faiss.read_index(str(tmp_path / "index.faiss"))
    theirs.nprobe = 4
    for found, expected in zip(index.search(QUERIES, 10), theirs.search(QUERIES, 10), strict=True):
        np.testing.assert_array_equal(found, expected)
    again = IVFPQ(**options, rerank=5)
    again.load(tmp_path / "index.faiss", vectors_file(tmp_path))
    distances, numbers = again.search(QUERIES, 10)
    np.testing.assert_allclose(distances, np.square(VECTORS[numbers] - QUERIES[:, None]).sum(2), rtol=1e-4)
    exact = np.square(VECTORS[None] - QUERIES[:, None]).sum(2).argmin(1)
    assert (numbers[:, 0] == exact).mean() > (index.search(QUERIES, 1)[1][:, 0] == exact).mean()


def test_the_sizes_of_ivf_pq_follow_the_vectors() -> None:
    index = IVFPQ()
    index.add(VECTORS)
    assert index._index.nlist == COUNT // 64
    assert DIMENSION % index._index.pq.M == 0
    larger = IVFPQ(pq_size=3, lists=20)
    larger.add(VECTORS)
    assert (larger._index.nlist, larger._index.pq.M) == (20, 3)


def test_few_vectors_to_train_on_are_told_once(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for bits, enough in ((4, 39 * 16), (8, 39 * 256)):
        index = IVFPQ(pq_bits=bits)
        index.add(VECTORS[:300])
        told = f"search/ivf-pq: 300 vectors are few to train on, {enough} would be enough; search/flat needs no"
        assert [text[: len(told)] for text in caplog.messages] == [told]
        caplog.clear()
    IVFPQ().add(VECTORS)
    assert caplog.messages == []
    assert "WARNING" not in "".join(capfd.readouterr())  # of faiss


def test_those_not_found_are_nobody_at_no_distance() -> None:
    index = IVFPQ(lists=50, probes=1, pq_size=8, rerank=0)
    index.add(VECTORS)
    distances, numbers = search_around(index.search, QUERIES, 1000, None)
    assert (numbers[:, -1] == -1).all()
    assert (np.isinf(distances) == (numbers == -1)).all()


def test_hidden_rows_are_passed_over_however_many_lie_before() -> None:
    index = Flat()
    index.add(VECTORS)
    order = np.square(VECTORS[None] - QUERIES[:, None]).sum(2).argsort(axis=1, kind="stable")
    gone = np.zeros(COUNT, bool)
    gone[order[0, :2000]] = True  # all that query 0 is near
    distances, numbers = search_around(index.search, QUERIES, 7, gone)
    for row in range(len(QUERIES)):
        assert numbers[row].tolist() == [n for n in order[row] if not gone[n]][:7]
    assert np.isfinite(distances).all()
    gone[:] = True
    gone[order[0, -3:]] = False
    distances, numbers = search_around(index.search, QUERIES[:1], 5, gone)
    assert numbers[0].tolist() == [*order[0, -3:], -1, -1]
    assert np.isinf(distances[0, 3:]).all()
