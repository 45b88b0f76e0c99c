"""One worker process of ``engine.pool``, from both ends of its two pipes.

The process shares nothing else, so killing it harms no sibling and leaves nothing behind. Through a large
pipe arrays and tensors travel faster than through torch's shared memory (``benchmarks/worker_pool.py``).
"""

from __future__ import annotations

import contextlib
import copyreg
import fcntl
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import numpy as np
import torch

from tag_core.engine.interrupt import end_with
from tag_core.errors import UnreadableInput

T = TypeVar("T")
R = TypeVar("R")
Message = list[memoryview]  # a pickle and its out-of-band buffers
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
_PIPE_BYTES = 1 << 20  # the most an ordinary user gets on Linux; 2-4 times as fast as the usual 64 KiB
_fork_lock = threading.Lock()  # a fork of another thread would keep the new pipes open


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: its input was refused, or it crashed or stalled its worker."""

    reason: str


class Worker:
    """The parent's side of one process."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        with _fork_lock:
            tasks, self._tasks = _CONTEXT.Pipe(duplex=False)
            self._answers, answers = _CONTEXT.Pipe(duplex=False)
            self._process = _CONTEXT.Process(target=_work, args=(function, tasks, answers, os.getpid()), daemon=True)
            self._process.start()
            self._ended = False
            tasks.close()
            answers.close()
        with contextlib.suppress(AttributeError, OSError):  # not Linux; the user's pipes are at their limit
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def is_alive(self) -> bool:
        # Process.is_alive is wrong for a moment where another thread, which starts a process, collects this one.
        return not self._ended and not wait([self._process.sentinel], timeout=0)

    def run(self, task: bytes, timeout: float) -> Message | Failure:
        """The answer to a pickled task; a ``Failure`` leaves the process dead."""
        try:
            self._tasks.send_bytes(task)
            if any(self._answers.poll(timeout / 10) for _ in range(10)):  # a stop (Ctrl-Z) counts as a tenth
                return [self._read(size) for size in self._answers.recv()]
        except Exception:  # its end, or noise from damaged memory
            return Failure(f"the worker process reading it died ({self.end(patience=1)})")
        self.end()
        return Failure(f"no answer after {timeout:g} s")

    def _read(self, size: int) -> memoryview:
        """Straight into its place, without the GIL; ``Connection`` would copy twice."""
        data, done = np.empty(size, np.uint8).data, 0
        while done < size:
            if not (count := os.readv(self._answers.fileno(), [data[done:]])):
                raise EOFError
            done += count
        return data

    def end(self, patience: float = 0) -> str:
        """Kill the process if it does not die by itself in ``patience`` seconds; returns how it died."""
        self._ended = True  # the system may take its time over the process
        self._process.join(patience)
        self._process.kill()
        self._process.join(5)  # longer if it is stuck in the kernel
        code = self._process.exitcode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


def attempt(function: Callable[[T], R], task: T) -> R | Failure:
    """Call the function on a task it may refuse."""
    try:
        return function(task)
    except UnreadableInput as error:
        return Failure(error.reason)


def _work(function: Callable[[Any], Any], tasks: Connection, answers: Connection, parent: int) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    gc.freeze()  # what the parent made is not ours to finalise
    end_with(parent)  # the end of a pipe would not tell: siblings hold copies of the parent's
    torch.set_num_threads(1)  # its other threads did not survive the fork; it would wait for them
    copyreg.pickle(torch.Tensor, _reduce_tensor)
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        while True:
            parts = _answer(function, tasks.recv_bytes())
            answers.send([len(part) for part in parts])
            for part in parts:
                while part:
                    part = part[os.write(answers.fileno(), part) :]


def _answer(function: Callable[[Any], Any], task: bytes) -> Message:
    try:
        return _pickled(attempt(function, pickle.loads(task)))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        with contextlib.suppress(Exception):
            error.add_note(f"In the worker process:\n{trace}")
            if isinstance(pickle.loads(pickle.dumps(error)), Exception):  # not every exception survives this
                return _pickled(error)
        return _pickled(RuntimeError(trace))


def _pickled(value: object) -> Message:
    buffers: list[pickle.PickleBuffer] = []
    body = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [memoryview(body), *(buffer.raw() for buffer in buffers)]


def _reduce_tensor(tensor: torch.Tensor) -> Any:
    """As an array, many times faster than torch's own pickling."""
    try:
        return torch.from_numpy, (tensor.numpy(),)
    except (TypeError, RuntimeError):  # numpy has no such type, or it needs a gradient
        return tensor.__reduce_ex__(5)  # type: ignore[no-untyped-call]
