"""A pool of worker processes that outlives what video decoders do: crash, hang, or refuse a file.

::

    the thread inside map()       a keeper thread per worker          worker processes
    pickles tasks, forks  ────>   hands on one task at a time   ───>  run the function
    yields in order       <────   reads answers, buries the dead <──  answer through another pipe

Keepers read while the caller computes. When a worker dies, only the task it was running is lost.
For Linux and macOS; elsewhere ``num_workers=0``.
"""

from __future__ import annotations

import atexit
import os
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Generic, Self

from tag_core.engine.worker import Failure, Message, R, T, Worker, attempt, decode
from tag_core.errors import TagError

__all__ = ["Failure", "WorkerPool"]

_START_SECONDS = 120.0  # importing torch afresh on a busy machine is slow, not dead
_MAX_STILLBORN = 3
_pools: weakref.WeakSet[WorkerPool[Any, Any]] = weakref.WeakSet()


class WorkerPool(Generic[T, R]):
    """Runs ``function`` on each task, in processes whose death costs one task.

    Args:
        function: from a task to its result; raises ``UnreadableInput`` for an input to pass over.
        num_workers: processes; 0 runs ``function`` in this one, unprotected from crashes and hangs.
        timeout: seconds that one task may take.
        start: called once in each worker before its first task, never in this process.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        num_workers: int,
        *,
        timeout: float = 60.0,
        start: Callable[[], None] | None = None,
    ) -> None:
        self._crew = _Crew(function, num_workers, timeout, start)
        _pools.add(self)

    def map(self, tasks: Iterable[T], ahead: int) -> Iterator[tuple[T, R | Failure]]:
        """Yield each task with its result or ``Failure``, in order.

        At most ``ahead`` tasks are taken and not yet yielded. Maps may be left halfway, and may overlap.
        Whatever else ``function`` raises is raised here, the worker's traceback as its ``__cause__``.
        """
        if not self._crew.size:
            yield from ((task, attempt(self._crew.function, task)) for task in tasks)
            return
        window: deque[tuple[T, _Job]] = deque()
        source = iter(tasks)
        try:
            while True:
                for task in islice(source, max(ahead, 1) - len(window)):
                    window.append((task, self._crew.submit(pickle.dumps(task))))
                if not window:
                    return
                result = self._crew.wait_for(window[0][1])
                yield window.popleft()[0], result
        finally:
            for _, job in window:
                job.cancelled = True

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._crew.stop(wait=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._crew.stop(wait=False)  # the garbage collector may be in any thread


atexit.register(lambda: [*map(WorkerPool.close, list(_pools))])


@dataclass(eq=False)
class _Job:
    task: bytes
    reply: Message | Failure | Exception | None = None
    cancelled: bool = False


class _Crew:
    """The workers and their keepers; never refers to its pool, which can so become garbage."""

    def __init__(self, function: Any, size: int, timeout: float, start: Any) -> None:
        self.function, self.size, self.timeout, self.start = function, size, timeout, start
        self.changed = threading.Condition()  # guards all below
        self.workers: set[Worker] = set()
        self.pending: deque[_Job] = deque()
        self.stillborn, self.closing, self.owner = 0, False, os.getpid()

    def submit(self, task: bytes) -> _Job:
        job = _Job(task)
        with self.changed:
            self.pending.append(job)
            self.changed.notify_all()
        return job

    def wait_for(self, job: _Job) -> Any:
        with self.changed:
            while job.reply is None or self.closing:
                self.hire()
                self.changed.wait()
        if isinstance(job.reply, Exception):
            raise job.reply
        return job.reply if isinstance(job.reply, Failure) else decode(job.reply)

    def hire(self) -> None:
        """Replace the dead. Only callers of ``map`` fork: a keeper could catch them inside torch."""
        if self.closing:
            raise RuntimeError("this worker pool is closed")
        while len(self.workers) < self.size:
            worker = Worker(self.function, self.start)
            threading.Thread(target=self.keep, args=(worker,), daemon=True).start()
            self.workers.add(worker)

    def keep(self, worker: Worker) -> None:
        """The life of a keeper thread, which is its worker's."""
        job, timed_out = None, False
        try:
            if error := worker.receive(_START_SECONDS):
                return self.fail(error)
            while job := self.next_job():
                worker.send(job.task)
                self.deliver(job, worker.receive(self.timeout))
        except Exception as error:  # its end, its silence, or noise from damaged memory
            timed_out = isinstance(error, TimeoutError)
        finally:
            self.bury(worker, job, timed_out)

    def next_job(self) -> _Job | None:
        """Wait for one; None once the pool closes."""
        with self.changed:
            while not self.closing:
                while self.pending:
                    if not (job := self.pending.popleft()).cancelled:
                        return job
                self.changed.wait()
        return None

    def deliver(self, job: _Job, message: Message) -> None:
        with self.changed:
            job.reply, self.stillborn = message, 0
            self.changed.notify_all()

    def bury(self, worker: Worker, job: _Job | None, timed_out: bool) -> None:
        with self.changed:
            how = worker.end(patience=0 if timed_out else 1)
            self.workers.remove(worker)
            if job and timed_out:
                job.reply = Failure(f"no answer after {self.timeout:g} s", "timeout")
            elif job and worker.begun.value == worker.sent:
                job.reply = Failure(f"the worker process reading it died ({how})", "crash")
            elif job:
                self.pending.appendleft(job)
            self.stillborn += not worker.begun.value
            if self.stillborn >= _MAX_STILLBORN:
                text = f"{_MAX_STILLBORN} worker processes in a row died before their first task ({how}): "
                self.fail(TagError(text + "num_workers=0 may show why"))
            self.changed.notify_all()  # a caller may hire

    def fail(self, reply: Message | Exception) -> None:
        with self.changed:
            for job in self.pending:
                job.reply = reply
            self.pending.clear()
            self.stillborn = 0

    def stop(self, wait: bool) -> None:
        if os.getpid() != self.owner:  # a forked copy, whose workers are its parent's
            return
        with self.changed:
            self.closing = True
            for worker in self.workers:
                worker.kill()
            self.changed.notify_all()
            self.changed.wait_for(lambda: not (wait and self.workers))
