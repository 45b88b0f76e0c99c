"""One worker process of ``engine.pool``: how it is started, spoken to and buried.

The process has two pipes of its own and shares nothing else, so killing it harms no sibling. Arrays and
CPU tensors travel as raw buffers beside their pickle (protocol 5): as fast as shared memory, and a killed
process leaves nothing behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import io
import multiprocessing
import os
import pickle
import select
import signal
import sys
import threading
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeVar

import numpy as np

from tag_core.errors import UnreadableInput

T = TypeVar("T")
R = TypeVar("R")
Message = list[memoryview]  # a pickle and its out-of-band buffers; an empty one says "ready for tasks"
_CONTEXT: Any = multiprocessing.get_context("fork" if sys.platform == "linux" else None)
_PIPE_BYTES = 1 << 20  # the most an ordinary user gets on Linux; 2-4 times as fast as the usual 64 KiB
_START_SECONDS = 120.0  # importing torch afresh on a busy machine is slow, not dead
_SMALL = 1 << 14  # buffers below this stay in the pickle
_fork_lock = threading.Lock()  # no fork may catch another pool's half-made pipes
_parent_ends: weakref.WeakSet[Connection] = weakref.WeakSet()


@dataclass(frozen=True)
class Failure:
    """Why a task has no result: its input was refused, or it crashed or stalled its worker."""

    reason: str
    kind: Literal["unreadable", "crash", "timeout"]


Reply = Message | Failure | Exception


class Worker:
    """The parent's side of one process; needs POSIX pipes."""

    def __init__(self, function: Callable[[Any], Any], start: Callable[[], None] | None) -> None:
        self._started, self._received = _CONTEXT.RawValue("Q"), 0
        with _fork_lock:
            tasks, self._tasks = _CONTEXT.Pipe(duplex=False)
            self._answers, answers = _CONTEXT.Pipe(duplex=False)
            _parent_ends.update((self._tasks, self._answers))
            ends = [*_parent_ends] if _CONTEXT.get_start_method() == "fork" else []
            args = (function, start, tasks, answers, self._started, ends)
            self._process = _CONTEXT.Process(target=_work, args=args, daemon=True)
            self._process.start()
            tasks.close()
            answers.close()
        self._fd: int = self._answers.fileno()
        os.set_blocking(self._fd, False)
        with contextlib.suppress(AttributeError, OSError):  # not Linux; the user's pipes are at their limit
            fcntl.fcntl(self._fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    @property
    def ready(self) -> bool:
        """Whether it has been heard of: the next thing it needs is a task."""
        return self._received > 0

    @property
    def tasks_started(self) -> int:
        """How many tasks the process has begun; known even when it died of one."""
        return int(self._started.value)

    @property
    def in_task(self) -> bool:
        """Whether it began a task that it has not answered. Its first message, "ready", is no answer."""
        return self.tasks_started >= max(self._received, 1)

    def send(self, task: bytes) -> None:
        with contextlib.suppress(OSError):  # it has died: the other pipe will say so
            self._tasks.send_bytes(task)

    def receive(self, timeout: float) -> Message:
        """The next answer. TimeoutError after ``timeout`` s, EOFError from a dead process."""
        timeout = timeout if self.ready else _START_SECONDS
        count = self._read(8, timeout).cast("Q")[0]
        sizes = self._read(8 * count, timeout).cast("Q")
        message = [self._read(size, timeout) for size in sizes]
        self._received += 1
        return message

    def _read(self, size: int, timeout: float) -> memoryview:
        data, done = np.empty(size, np.uint8).data, 0
        while done < size:
            try:
                count = os.readv(self._fd, [data[done:]])
            except BlockingIOError:  # in tenths, so that a stop (Ctrl-Z) of any length counts as one
                if any(self._answers.poll(timeout / 10) for _ in range(10)):
                    continue
                raise TimeoutError from None
            if not count:
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


def _work(function: Any, start: Any, tasks: Connection, answers: Connection, started: Any, ends: Any) -> None:
    for end in ends:  # the parent's: while a sibling holds them, the parent's death goes unnoticed
        end.close()
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    gc.freeze()  # what the parent made is not ours to finalise
    threading.Thread(target=_end_with_parent, args=(answers.fileno(),), daemon=True).start()
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # its other threads did not survive the fork; it would wait for them
    try:
        if start is not None:
            start()
    except BaseException as error:
        return _write(answers.fileno(), _encode_error(error))
    with contextlib.suppress(EOFError, OSError):  # the parent is gone
        _write(answers.fileno(), [])
        while True:
            task = tasks.recv_bytes()
            started.value += 1
            _write(answers.fileno(), _answer(function, task))
    return None


def _end_with_parent(answers: int) -> None:
    poll = select.poll()
    poll.register(answers, 0)  # returns when nobody can read the answers any more, even during a task
    poll.poll()
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


def _write(fd: int, message: Message) -> None:
    sizes = np.array([len(message), *(part.nbytes for part in message)], np.uint64)
    for part in [sizes.data.cast("B"), *message]:
        while part.nbytes:
            part = part[os.write(fd, part) :]


class WorkerTraceback(Exception):
    """Where in the worker it happened: the ``__cause__`` of what ``decode`` raises."""


def decode(reply: Reply) -> Any:
    """What the function returned, or a ``Failure``; raises what the function raised."""
    if isinstance(reply, Failure):
        return reply
    if isinstance(reply, Exception):
        raise reply
    value, trace = pickle.loads(reply[0], buffers=reply[1:])
    if trace is not None:
        raise value from WorkerTraceback("\n" + trace)
    return value


def _encode(value: object, trace: str | None = None) -> Message:
    buffers: Message = []

    def stays_inside(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes >= _SMALL:
            buffers.append(buffer.raw())
        return buffer.raw().nbytes < _SMALL

    body = io.BytesIO()
    _Pickler(body, protocol=5, buffer_callback=stays_inside).dump((value, trace))
    return [body.getbuffer(), *buffers]


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
        if not torch or type(obj) is not torch.Tensor or obj.layout != torch.strided or not obj.is_cpu:
            return NotImplemented
        if obj.requires_grad or obj.is_quantized or obj.is_conj() or obj.is_neg():
            return NotImplemented
        return _tensor, (obj.contiguous().reshape(-1).view(torch.uint8).numpy(), obj.dtype, obj.shape)


def _tensor(data: Any, dtype: Any, shape: Any) -> Any:
    import torch

    return torch.from_numpy(data).view(dtype).reshape(shape)
