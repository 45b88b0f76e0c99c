"""The worker pool against real crashes, hangs and kills."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tag_core.engine.pool import Failure, WorkerPool
from tag_core.errors import UnreadableInput

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc and passes closures by fork")


def children(pid: int | str = "self") -> set[int]:
    """Processes of that parent, zombies included; of whichever of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for file in lists for child in file.read_text().split()}


def until(condition: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_running(pid: int) -> bool:
    try:
        ended = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return not ended or len(os.listdir(f"/proc/{pid}/task")) > 1  # other threads may outlive the first
    except OSError:
        return False


def square(number: int) -> int:
    return number * number


def hostile(task: str) -> str:
    """Does to its process what the task's name says."""
    if task in ("segfault", "abort"):
        faulthandler.disable()  # pytest's would print a page
    if task == "segfault":
        ctypes.string_at(0)
    elif task == "abort":
        os.kill(os.getpid(), signal.SIGABRT)
    elif task == "exit":
        os._exit(3)
    elif task == "hang":
        time.sleep(100)
    elif task == "unreadable":
        raise UnreadableInput("a.mp4", "no video stream")
    return task.upper()


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(num_workers: int) -> None:
    def slow_square(number: int) -> int:
        time.sleep(random.Random(number).uniform(0, 0.01))
        return square(number)

    with WorkerPool(slow_square, num_workers) as pool:
        for ahead in (1, 2, 7, 100):
            assert list(pool.map(range(40), ahead)) == [(n, n * n) for n in range(40)]
        assert not list(pool.map([], 4))


@pytest.mark.parametrize(("num_workers", "ahead", "most"), [(2, 5, 5), (2, 1, 1), (0, 5, 1)])
def test_tasks_are_taken_no_further_ahead_than_asked(num_workers: int, ahead: int, most: int) -> None:
    taken, distances = 0, []

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(30):
            taken += 1
            yield number

    with WorkerPool(square, num_workers) as pool:
        for yielded, _ in enumerate(pool.map(tasks(), ahead)):
            distances.append(taken - yielded)
    assert max(distances) == most


def test_both_workers_work_at_once_when_two_tasks_are_ahead(tmp_path: Path) -> None:
    def meet(name: str) -> bool:
        (tmp_path / name).touch()
        return until(lambda: len(list(tmp_path.iterdir())) == 2, 5)

    with WorkerPool(meet, 2) as pool:
        assert [met for _, met in pool.map(["a", "b"], 2)] == [True, True]


def test_a_crash_costs_the_one_task_that_crashed() -> None:
    tasks = ["a", "segfault", "b", "c", "abort", "exit", "d", "e", "segfault", "segfault", "f"]
    died = "the worker process reading it died"
    ways = {"segfault": "SIGSEGV", "abort": "SIGABRT", "exit": "exit status 3"}
    expected = {task: Failure(f"{died} ({way})") for task, way in ways.items()}
    with WorkerPool(hostile, 2) as pool:
        results = list(pool.map(tasks, 6))
    assert results == [(task, expected.get(task, task.upper())) for task in tasks]


def test_a_task_that_hangs_is_given_up_after_the_timeout() -> None:
    with WorkerPool(hostile, 2, timeout=3) as pool:
        results = dict(pool.map(["a", "hang", "b", "c", "d"], 5))
    assert results.pop("hang") == Failure("no answer after 3 s")
    assert results == {"a": "A", "b": "B", "c": "C", "d": "D"}


def test_waiting_behind_other_tasks_does_not_count_as_hanging() -> None:
    def nap(_: int) -> str:
        time.sleep(0.8)
        return "rested"

    with WorkerPool(nap, 1, timeout=3) as pool:
        assert [result for _, result in pool.map(range(4), 4)] == ["rested"] * 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_input_is_a_result_with_its_reason(num_workers: int) -> None:
    with WorkerPool(hostile, num_workers) as pool:
        results = [result for _, result in pool.map(["a", "unreadable", "b"], 2)]
    assert results == ["A", Failure("no video stream"), "B"]


def test_a_bug_is_raised_here_with_the_workers_traceback() -> None:
    def has_a_bug(number: int) -> int:
        return 1 // (number - 2)

    with WorkerPool(has_a_bug, 2) as pool:
        with pytest.raises(ZeroDivisionError) as caught:
            list(pool.map(range(5), 3))
        assert "return 1 // (number - 2)" in caught.value.__notes__[0]
        assert list(pool.map([1], 3)) == [(1, -1)]  # and the pool is still good


class LosesItsArgument(Exception):
    """Pickles, but does not unpickle."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


@pytest.mark.parametrize("kind", ["holds a lock", "loses its argument", "is no Exception", "result"])
def test_what_does_not_pickle_is_raised_in_words(kind: str) -> None:
    def refuse(_: int) -> object:
        if kind == "holds a lock":
            raise ValueError("locked in", threading.Lock())
        if kind == "loses its argument":
            raise LosesItsArgument("locked ", "in")
        if kind == "is no Exception":
            raise SystemExit("locked in")
        return threading.Lock()

    with WorkerPool(refuse, 1) as pool, pytest.raises((RuntimeError, TypeError), match="lock") as caught:
        list(pool.map([0], 1))
    assert "Traceback" in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])


def test_a_hundred_crashes_leave_no_process_file_or_thread_behind() -> None:
    def in_use() -> tuple[int, int, int]:
        gc.collect()  # what earlier tests left open is closed by now
        return len(os.listdir("/proc/self/fd")), len(children()), threading.active_count()

    with WorkerPool(hostile, 2) as pool:
        list(pool.map(["a", "b", "c"], 3))
        before = in_use()
        results = [result for _, result in pool.map(["exit", "a"] * 100, 4)]
        list(pool.map(["a", "b", "c"], 3))
        assert in_use() == before
    assert results[1::2] == ["A"] * 100
    assert all(isinstance(result, Failure) for result in results[::2])
    assert len(children()) == before[1] - 2


def test_a_map_left_midway_does_not_disturb_the_next() -> None:
    with WorkerPool(square, 2) as pool:
        for number, _ in pool.map(range(1000), 8):
            if number == 3:
                break
        kept = pool.map(range(1000), 8)  # still referenced, so not closed
        next(kept)
        assert list(pool.map(range(50), 8)) == [(n, n * n) for n in range(50)]
        assert next(kept) == (1, 1)


def test_tasks_queued_by_a_map_that_was_left_are_not_run(tmp_path: Path) -> None:
    def leave_a_trace(number: int) -> None:
        (tmp_path / str(number)).touch()
        time.sleep(0.1)

    with WorkerPool(leave_a_trace, 1) as pool:
        next(pool.map(range(50), 50))
        next(pool.map([99], 1))
    assert len(list(tmp_path.iterdir())) < 10


def test_maps_may_overlap() -> None:
    with WorkerPool(square, 2) as pool:
        pairs = list(zip(pool.map(range(30), 4), pool.map(range(100, 130), 4), strict=True))
    assert pairs == [((n, n * n), (n + 100, (n + 100) ** 2)) for n in range(30)]


def test_a_task_left_hanging_by_an_earlier_map_is_ended_too() -> None:
    with WorkerPool(hostile, 1, timeout=0.5) as pool:
        next(pool.map(["a", "hang", "b"], 3))
        assert list(pool.map(["c"], 1)) == [("c", "C")]


def test_large_arrays_and_tensors_arrive_intact() -> None:
    def make(seed: int) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        clip = torch.from_numpy(rng.integers(0, 256, (16, 3, 112, 112), np.uint8))
        return {
            "clip": clip,
            "view": clip[3, :, ::2],
            "half": clip[0].to(torch.bfloat16),
            "mask": clip > 100,
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 4),
            "weight": torch.nn.Parameter(torch.ones(3)),
            "array": rng.random((50, 1000)),
            "fortran": np.asfortranarray(rng.random((300, 400))),
        }

    with WorkerPool(make, 2) as pool:
        for seed, sent in pool.map(range(8), 4):
            assert isinstance(sent, dict)
            for name, value in make(seed).items():
                assert sent[name].dtype == value.dtype
                assert sent[name].shape == value.shape
                assert (sent[name] == value).all()
            sent["clip"] += 1
            sent["array"] += 1  # both are ours to change


def test_torch_works_in_a_worker_after_the_parent_used_its_threads() -> None:
    def total(number: int) -> float:
        return float(torch.full((1 << 22,), float(number)).add(1).sum())

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        expected = [(number, total(number)) for number in range(4)]
        with WorkerPool(total, 2, timeout=5) as pool:
            assert list(pool.map(range(4), 4)) == expected
    finally:
        torch.set_num_threads(threads)


def test_tasks_larger_than_a_pipe_arrive_even_behind_one_that_hangs() -> None:
    def size(task: bytes) -> int:
        if len(task) == 1:
            time.sleep(100)
        return len(task)

    with WorkerPool(size, 1, timeout=3) as pool:
        results = [result for _, result in pool.map([b"1", bytes(1 << 20), bytes(3 << 20)], 3)]
    assert results == [Failure("no answer after 3 s"), 1 << 20, 3 << 20]


def test_an_idle_worker_that_is_killed_costs_no_task() -> None:
    with WorkerPool(square, 2) as pool:
        others = children()
        list(pool.map(range(10), 4))
        workers = children() - others
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        assert until(lambda: not any(map(is_running, workers)))  # dying takes a while on a busy machine
        assert list(pool.map(range(10), 4)) == [(n, n * n) for n in range(10)]


def test_a_closed_pool_has_no_workers_and_says_that_it_is_closed() -> None:
    others = children()
    pool = WorkerPool(hostile, 2)
    results = pool.map(["a", "hang", "hang", "hang"], 4)
    next(results)
    pool.close()
    pool.close()
    assert children() == others
    with pytest.raises(RuntimeError, match="closed"):
        next(results)
    with pytest.raises(RuntimeError, match="closed"):
        next(pool.map(["a"], 1))


PARENT = """
import os, signal, sys, time
from tag_core.engine.pool import WorkerPool

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with Ctrl-C ignored

def work(task):
    if task:
        time.sleep(task)
    return task

pools = [WorkerPool(work, 2), WorkerPool(work, 2, timeout=3)]
for pool in pools:
    assert list(pool.map([0] * 8, 4)) == [(0, 0)] * 8
print("ready", flush=True)
try:
    {body}
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


def start_parent(body: str) -> subprocess.Popen[str]:
    """A process group of a parent and its four workers, in two pools, of which the second is idle."""
    command, pipe = [sys.executable, "-c", PARENT.format(body=body)], subprocess.PIPE
    parent = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    return parent


def test_workers_end_with_a_parent_that_is_killed_even_in_the_middle_of_a_task() -> None:
    parent = start_parent("list(pools[0].map([100, 0.1, 100], 3))")
    workers = children(parent.pid)
    assert len(workers) == 4
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    assert until(lambda: not any(map(is_running, workers)), 5)


def test_ctrl_c_interrupts_the_parent_alone_and_leaves_no_worker() -> None:
    parent = start_parent("list(pools[0].map([100, 100, 100], 3))")
    workers = children(parent.pid)
    time.sleep(0.2)
    os.killpg(parent.pid, signal.SIGINT)
    assert parent.communicate(timeout=60) == ("interrupted\n", "")
    assert parent.returncode == 0
    assert not any(map(is_running, workers))


def test_a_worker_leaves_ctrl_c_to_the_parent() -> None:
    with WorkerPool(signal.raise_signal, 1) as pool:
        assert list(pool.map([signal.SIGINT], 1)) == [(signal.SIGINT, None)]


def test_an_exception_at_the_end_of_a_program_that_closed_nothing_leaves_no_worker() -> None:
    parent = start_parent("next(pools[0].map([0, 100, 100], 3)); sys.exit('over')")
    workers = children(parent.pid)
    assert parent.communicate(timeout=60) == ("", "over\n")
    assert not any(map(is_running, workers))


def test_a_program_stopped_for_longer_than_the_timeout_goes_on_where_it_was() -> None:
    parent = start_parent("print(list(pools[1].map([0.5, 0.5], 2)))")
    time.sleep(0.2)
    os.killpg(parent.pid, signal.SIGSTOP)
    time.sleep(3.5)
    os.killpg(parent.pid, signal.SIGCONT)
    assert parent.communicate(timeout=60) == ("[(0.5, 0.5), (0.5, 0.5)]\n", "")
