"""Each index of ``search`` at 100,000 x 512: recall@1 against exact search, and queries per CPU second against faiss.

Vectors are made up: 2,000 identities of about 50 pictures, clusters in a latent space of 64 dimensions, laid out in
512 with a little noise; queries are further pictures of the same identities. faiss is called directly on the very
same graph or codes, held in memory, with the same parameters; Tag's side starts from raw vectors and an index that
was opened by mapping. One thread; CPU time is compared, in rounds that take turns, since machines are seldom quiet.
Then an index of 1,000,000 x 64 is opened, and what that reads into memory is compared with the size of its files.
Exit code 1 if Tag is below 0.95 of faiss, or opening reads more than a twentieth of the files. What the index adds to
the vectors may be read besides, up to twice its size: faiss checks a graph as it maps it, and packs codes of 4 bits
for fast scans. Arguments name parts to run: an index, or "open".
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any

import faiss as untyped
import numpy as np
import numpy.typing as npt

from tag_core.records import Record
from tag_plugins_search.store import IndexFolder

faiss: Any = untyped
Floats = npt.NDArray[np.float32]
COUNT, DIMENSION, QUERIES, K, ROUNDS, LIMIT, READ = 100_000, 512, 1000, 10, 7, 0.95, 0.05
INDEXES = ("search/flat", "search/hnsw", "search/ivf-pq")
QUICK = {"search/flat": {}, "search/hnsw": {"m": 8, "ef_construction": 16}, "search/ivf-pq": {"lists": 256}}
"""Options that build an index of a million in minutes."""
OPEN = """
import sys
from pathlib import Path
from tag_plugins_search.store import IndexFolder
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096
IndexFolder.open(sys.argv[1])
before = resident()
index = IndexFolder.open(sys.argv[2])
print(resident() - before)
"""


def pictures(count: int, dimension: int, seed: int) -> Floats:
    fixed, rng = np.random.default_rng(0), np.random.default_rng(seed)
    centres, layout = fixed.standard_normal((2000, 64)), fixed.standard_normal((64, dimension))
    latent = centres[rng.integers(0, 2000, count)] + 0.6 * rng.standard_normal((count, 64))
    return (latent @ layout + 0.4 * rng.standard_normal((count, dimension))).astype(np.float32)


def records(vectors: Floats) -> Iterator[Record]:
    for number, row in enumerate(vectors):
        yield Record(source=f"{number}.jpg", embedding=row)  # type: ignore[arg-type]


def direct(index: IndexFolder) -> Callable[[Floats, int], Any]:
    """faiss itself on the index's files, read into memory."""
    about = index.manifest
    path = {role: str(index.path / file["name"]) for role, file in about.files.items()}
    vectors, options = faiss.read_index(path["vectors"]), about.index
    if about.index["name"] == "search/flat":
        return lambda queries, k: vectors.search(queries, k)
    found = faiss.read_index(path["index"])
    if about.index["name"] == "search/hnsw":
        found.storage, found.own_fields = vectors, False
        parameters = faiss.SearchParametersHNSW(efSearch=options["ef_search"])
    else:
        probes = faiss.SearchParametersIVF(nprobe=options["probes"])
        parameters = faiss.IndexRefineSearchParameters(k_factor=options["rerank"], base_index_params=probes)
    whole = faiss.IndexRefine(found, vectors) if about.index["name"] == "search/ivf-pq" else found
    return lambda queries, k, keep=(found, vectors): whole.search(queries, k, params=parameters)


def cost(search: Callable[[], Any]) -> float:
    began = process_time()
    search()
    return process_time() - began


def compare(index: IndexFolder, queries: Floats, exact: npt.NDArray[np.int64]) -> float:
    """Print a row of the table; returns Tag's throughput over that of faiss."""
    theirs, units = direct(index), queries / np.linalg.norm(queries, axis=1, keepdims=True)
    recall = float((index.search(queries, K).numbers[:, 0] == exact).mean())
    same = float((theirs(units, K)[1][:, 0] == exact).mean())
    pairs = [(cost(lambda: index.search(queries, K)), cost(lambda: theirs(units, K))) for _ in range(ROUNDS)]
    ratio = median(faiss_side / tag_side for tag_side, faiss_side in pairs)
    name, milliseconds = index.manifest.index["name"], median(tag for tag, _ in pairs) / QUERIES * 1e3
    print(f"{name:14} recall@1 {recall:.3f} (faiss {same:.3f}), {milliseconds:.2f} ms a query, {ratio:.3f} of faiss")
    return ratio


def opened(folder: Path) -> float:
    """What opening a large index reads beside graph or codes, as a share of its files; the largest share."""
    shares = []
    for name, options in QUICK.items():
        small, large = folder / f"{name}-small", folder / f"{name}-large"
        IndexFolder.build(small, records(pictures(2000, 64, 3)), name)
        IndexFolder.build(large, records(pictures(1_000_000, 64, 4)), {"name": name, **options})
        size = sum(path.stat().st_size for path in large.iterdir())
        done = subprocess.run([sys.executable, "-c", OPEN, small, large], capture_output=True, text=True, check=True)
        added = sum(path.stat().st_size for path in large.glob("index-*"))
        shares.append((int(done.stdout) - 2 * added) / size)
        print(f"{name:14} opening 1,000,000 x 64: {int(done.stdout) / 2**20:.1f} of {size / 2**20:.0f} MB read")
    return max(shares)


def main() -> int:
    faiss.omp_set_num_threads(1)
    vectors, queries = pictures(COUNT, DIMENSION, 1), pictures(QUERIES, DIMENSION, 2)
    exact = faiss.knn(*(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, vectors)), 1)[1][:, 0]
    parts, failed = sys.argv[1:] or [*INDEXES, "open"], False
    with tempfile.TemporaryDirectory() as scratch:
        for name in [part for part in parts if part != "open"]:
            index = IndexFolder.build(Path(scratch) / name, records(vectors), name)
            failed |= compare(IndexFolder.open(index.path), queries, exact) < LIMIT
        if "open" in parts:
            failed |= opened(Path(scratch)) > READ
    print(f"bars: {LIMIT} of faiss, {READ} of the files read by opening: {'missed' if failed else 'kept'}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
