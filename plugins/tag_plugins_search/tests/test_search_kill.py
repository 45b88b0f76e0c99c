"""A kill -9 at any instant leaves the old index or the new one, and the next command finds no trouble.

A process that has imported everything forks one child for each instant, and the child is killed there:
before and after each operation on a file, and after delays spread over the whole command.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import faiss
import numpy as np
import pytest
from search_data import own_environment

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search.store import IndexFolder

SCRIPT = """
import os, random, shutil, signal, sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import faiss
from test_search_kill import change
from tag_plugins_search.indexes import flat, hnsw  # before the forks

faiss.omp_set_num_threads(1)  # several wait for each other in turns when the processors are busy
folder, operation, index, how, count = Path(sys.argv[2]), *sys.argv[3:6], int(sys.argv[6])

def die_at(step, place):
    passed = 0
    def tick(path):
        nonlocal passed
        if str(path).startswith(str(place)):
            passed += 1
            if passed == step:
                os.kill(os.getpid(), signal.SIGKILL)
    def around(function, path_of):
        def replaced(*args, **options):
            path = path_of(args[0])
            tick(path)
            result = function(*args, **options)
            tick(path)
            return result
        return replaced
    names = {"fsync": lambda fd: os.readlink(f"/proc/self/fd/{fd}"), "replace": str, "unlink": str, "mkdir": str}
    for name, path_of in names.items():
        setattr(os, name, around(getattr(os, name), path_of))
    sys.addaudithook(lambda event, args: tick(args[0]) if event == "open" else None)

def trial(number, step=None, delay=None):
    place = folder / f"{how}-{number}"
    if (folder / "old").exists():
        shutil.copytree(folder / "old", place)
    child = os.fork()
    if child == 0:
        if step is not None:
            die_at(step, place)
        code = 1
        try:
            change(place, operation, index)
            code = 0
        finally:
            os._exit(code)
    if delay is not None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

if how == "steps":
    status, step = 9, 0
    while status == 9:
        step += 1
        status = trial(step, step=step)
    assert status == 0, status
    print(step - 1)
else:
    assert trial("first") == 0  # slower than all that follow
    began = time.monotonic()
    assert trial("whole") == 0
    whole = time.monotonic() - began
    generator = random.Random(0)
    print(sum(trial(n, delay=generator.uniform(0, whole)) == 9 for n in range(count)))
"""
faiss.omp_set_num_threads(1)
OLD, NEW = 60, 30
CASES = [("build", "hnsw"), ("add", "hnsw"), ("remove", "flat"), ("compact", "flat")]


def records(first: int, count: int) -> list[Record]:
    """Of source s<n>, with a vector that depends on n alone."""
    return [
        Record(source=f"s{n}", embedding=np.random.default_rng(n).standard_normal(8).tolist())
        for n in range(first, first + count)
    ]


def change(folder: Path, operation: str, index: str) -> None:
    if operation == "build":
        IndexFolder.build(folder, records(1000, NEW), index, replace=True)
    elif operation == "add":
        IndexFolder.open(folder).add(records(1000, NEW))
    elif operation == "remove":
        IndexFolder.open(folder).remove([f"s{n}" for n in range(0, OLD, 3)])
    else:
        IndexFolder.open(folder).compact()


def content(folder: Path) -> dict[str, int]:
    """Source -> that of its own nearest entry: what the index holds and whether it finds it."""
    index = IndexFolder.open(folder)
    assert index.verify() == []
    numbers = index.numbers().tolist()
    names = [record.source for record in index.records(numbers)]
    vectors = np.array([record.embedding for name in names for record in records(int(name[1:]), 1)])
    found = index.search(vectors, 1).numbers[:, 0].tolist()
    assert found == numbers
    return dict(zip(names, numbers, strict=True))


def killed(tmp_path: Path, operation: str, index: str, how: str, count: int = 0) -> int:
    """How often it was killed; the folders are left in ``tmp_path``."""
    arguments = [str(Path(__file__).parent), str(tmp_path), operation, index, how, str(count)]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env=own_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def check(tmp_path: Path, operation: str, index: str, how: str) -> set[str]:
    """Each folder is the old index or the new, and the command can be given again; which ones there were."""
    before = content(tmp_path / "old") if (tmp_path / "old").exists() else None
    after = content(_whole(tmp_path, operation, index))
    seen = set()
    for number, folder in enumerate(sorted(tmp_path.glob(f"{how}-*"))):
        if (folder / "manifest.json").exists():
            found = content(folder)
        else:
            with pytest.raises(UserError, match="no index there"):
                IndexFolder.open(folder)
            found = None
        assert found in (before, after), folder
        seen.add("old" if found == before else "new")
        if number % 4:
            continue
        if found == before:
            change(folder, operation, index)
        else:
            IndexFolder.open(folder).add(records(5000, 1))
        assert len(IndexFolder.open(folder)) == len(after) + (found != before)
        named = {file["name"] for file in IndexFolder.open(folder).manifest.files.values()}
        assert {path.name for path in folder.iterdir()} == named | {"manifest.json", ".tag-lock"}
    return seen


def _whole(tmp_path: Path, operation: str, index: str) -> Path:
    folder = tmp_path / "done"
    if (tmp_path / "old").exists():
        subprocess.run(["cp", "-r", str(tmp_path / "old"), str(folder)], check=True)
    change(folder, operation, index)
    return folder


def start(tmp_path: Path, operation: str, index: str) -> None:
    old = IndexFolder.build(tmp_path / "old", records(0, OLD), index)
    if operation == "compact":
        old.remove([f"s{n}" for n in range(0, OLD, 2)])


@pytest.mark.parametrize(("operation", "index"), CASES)
def test_killed_at_every_operation_on_a_file(operation: str, index: str, tmp_path: Path) -> None:
    start(tmp_path, operation, index)
    steps = killed(tmp_path, operation, index, "steps")
    assert steps > 10
    assert check(tmp_path, operation, index, "steps") == {"old", "new"}


def test_the_first_build_killed_at_every_operation_leaves_no_index_or_a_whole_one(tmp_path: Path) -> None:
    assert killed(tmp_path, "build", "flat", "steps") > 10
    assert check(tmp_path, "build", "flat", "steps") == {"old", "new"}


@pytest.mark.parametrize(("operation", "index"), [("build", "hnsw"), ("add", "hnsw"), ("compact", "flat")])
def test_killed_at_any_time(operation: str, index: str, tmp_path: Path) -> None:
    start(tmp_path, operation, index)
    assert killed(tmp_path, operation, index, "times", 30) > 0
    assert check(tmp_path, operation, index, "times") == {"old", "new"}
