"""One worker process of ``engine.pool``, from both ends of its two pipes.

The process shares nothing else, so killing it harms no sibling. Arrays and CPU tensors travel as raw
buffers beside their pickle (protocol 5): as fast as shared memory, and a killed process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeVar

import numpy as np

from tag_core.errors import UnreadableInput

T = TypeVar("T")
R = TypeVar("R")
Message = list[memoryview]  # a pickle and its out-of-band buffers
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
_PIPE_BYTES = 1 << 20  # the most an ordinary user gets on Linux; 2-4 times as fast as the usual 64 KiB
_fork_lock = threading.Lock()  # no fork may catch another pool's half-made pipes


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: its input was refused, or it crashed or stalled its worker."""

    reason: str
    kind: Literal["unreadable", "crash", "timeout"]


class Worker:
    """The parent's side of one process; needs POSIX pipes.

    ``sent`` counts the tasks handed over, ``begun.value`` those begun, even by a process that died of one.
    """

    def __init__(self, function: Callable[[Any], Any], start: Callable[[], None] | None) -> None:
        self.begun, self.sent = _CONTEXT.RawValue("Q"), 0
        with _fork_lock:
            tasks, self._tasks = _CONTEXT.Pipe(duplex=False)
            self._answers, answers = _CONTEXT.Pipe(duplex=False)
            args = (function, start, tasks, answers, self.begun, os.getpid())
            self._process = _CONTEXT.Process(target=_work, args=args, daemon=True)
            self._process.start()
            tasks.close()
            answers.close()
        with contextlib.suppress(AttributeError, OSError):  # not Linux; the user's pipes are at their limit
            fcntl.fcntl(self._answers, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def send(self, task: bytes) -> None:
        self.sent += 1
        with contextlib.suppress(OSError):  # it has died: the other pipe will say so
            self._tasks.send_bytes(task)

    def receive(self, timeout: float) -> Message:
        """The answer to ``start`` (empty if it ran) or to a task; see :func:`decode`.

        Raises:
            TimeoutError: none came in ``timeout`` seconds.
            EOFError: the process is dead.
        """
        if not any(self._answers.poll(timeout / 10) for _ in range(10)):  # a stop (Ctrl-Z) counts as a tenth
            raise TimeoutError
        return [self._read(size) for size in self._answers.recv()]

    def _read(self, size: int) -> memoryview:
        """Straight into its place, without the GIL; ``Connection`` would copy twice."""
        data, done = np.empty(size, np.uint8).data, 0
        while done < size:
            if not (count := os.readv(self._answers.fileno(), [data[done:]])):
                raise EOFError
            done += count
        return data

    def kill(self) -> None:
        self._process.kill()

    def end(self, patience: float) -> str:
        """Reap the process, killed if it has not died after ``patience`` seconds; say how it died."""
        with _fork_lock:  # Process.start reaps too, and a fork must not see half-closed pipes
            self._process.join(patience)
            self._process.kill()
            self._process.join(5)
            code = self._process.exitcode
            if code is not None:  # None: stuck in the kernel, past killing
                self._process.close()
            self._tasks.close()
            self._answers.close()
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit status {code}"


def _work(function: Any, start: Any, tasks: Connection, answers: Connection, begun: Any, parent: int) -> None:
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    gc.freeze()  # what the parent made is not ours to finalise
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its other threads did not survive the fork; it would wait for them
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        try:
            if start is not None:
                start()
        except BaseException as error:
            return _send(answers, _encode_error(error))
        _send(answers, [])
        while True:
            task = tasks.recv_bytes()
            begun.value += 1
            _send(answers, _answer(function, task))
    return None


def _end_with(parent: int) -> None:
    """Even during a task. Not by the end of a pipe: siblings hold copies of the parent's."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def attempt(function: Callable[[T], R], task: T) -> R | Failure:
    """Call the function on a task it may refuse."""
    try:
        return function(task)
    except UnreadableInput as error:
        return Failure(error.reason, "unreadable")


def _answer(function: Callable[[Any], Any], task: bytes) -> Message:
    try:
        return _encode(attempt(function, pickle.loads(task)))
    except BaseException as error:
        return _encode_error(error)


def _send(answers: Connection, message: Message) -> None:
    answers.send([len(part) for part in message])
    for part in message:
        while part:
            part = part[os.write(answers.fileno(), part) :]


class WorkerTraceback(Exception):
    """Where in the worker it happened: the ``__cause__`` of what ``decode`` raises."""


def decode(message: Message) -> Any:
    """What the function returned, or a ``Failure``; raises what the function raised."""
    value, trace = pickle.loads(message[0], buffers=message[1:])
    if trace is not None:
        raise value from WorkerTraceback("\n" + trace)
    return value


def _encode(value: object, trace: str | None = None) -> Message:
    body, buffers = io.BytesIO(), list[pickle.PickleBuffer]()
    _Pickler(body, protocol=5, buffer_callback=buffers.append).dump((value, trace))
    return [body.getbuffer(), *(buffer.raw() for buffer in buffers)]


def _encode_error(error: BaseException) -> Message:
    trace = "".join(traceback.format_exception(error))
    with contextlib.suppress(Exception):
        if isinstance(pickle.loads(pickle.dumps(error)), Exception):
            return _encode(error, trace)
    return _encode(RuntimeError("".join(traceback.format_exception_only(error)).strip()), trace)


class _Pickler(pickle.Pickler):
    """Sends a plain tensor as an array; torch itself would copy it into the pickle."""

    def reducer_override(self, obj: Any) -> Any:
        torch = sys.modules.get("torch")  # heavy, and without it there are no tensors
        if torch and type(obj) is torch.Tensor:
            with contextlib.suppress(TypeError, RuntimeError):  # numpy has no such type; leave it to torch
                return torch.from_numpy, (obj.numpy(),)
        return NotImplemented
