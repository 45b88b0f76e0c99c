"""A pool of worker processes that outlives what video decoders do: crash, hang, or refuse a file.

::

    the thread inside map()       a keeper thread per worker           worker processes
    pickles tasks, forks  ────>   two tasks at most in a pipe   ────>  run the function
    yields in order       <────   reads answers, buries the dead <───  answer through another pipe

Workers have a second task at hand and wait for no caller that computes. When one dies, only the task it
was running is lost. For Linux and macOS; elsewhere ``num_workers=0``.
"""

from __future__ import annotations

import atexit
import os
import pickle
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, Self

from tag_core.engine.worker import Failure, Message, R, Reply, T, Worker, attempt, decode
from tag_core.errors import TagError

__all__ = ["Failure", "WorkerPool"]

_NEVER_BLOCKS = 4000  # bytes that go into any pipe with nobody reading
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
        if not self._crew.seats:
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
                reply = self._crew.wait_for(window[0][1])
                yield window.popleft()[0], decode(reply)
        finally:
            for _, job in window:
                job.cancelled = True

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._crew.stop()
        for seat in self._crew.seats:
            if seat.keeper:
                seat.keeper.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self._crew.stop()  # without waiting: the garbage collector may be in any thread


atexit.register(lambda: [*map(WorkerPool.close, list(_pools))])


@dataclass(eq=False)
class _Job:
    task: bytes
    reply: Reply | None = None
    cancelled: bool = False


@dataclass(eq=False)
class _Seat:
    worker: Worker | None = None  # none yet, or no more
    keeper: threading.Thread | None = None
    jobs: deque[_Job] = field(default_factory=deque)  # the first is running, the second waits in the pipe


class _Crew:
    """The workers and their keepers; never refers to its pool, which can so become garbage."""

    def __init__(self, function: Any, size: int, timeout: float, start: Any) -> None:
        self.function, self.timeout, self.start = function, timeout, start
        self.changed = threading.Condition()  # guards all below
        self.seats = [_Seat() for _ in range(size)]
        self.pending: deque[_Job] = deque()
        self.stillborn, self.closing, self.owner = 0, False, os.getpid()

    def submit(self, task: bytes) -> _Job:
        job = _Job(task)
        with self.changed:
            self.pending.append(job)
            self.changed.notify_all()
        return job

    def wait_for(self, job: _Job) -> Reply:
        with self.changed:
            while job.reply is None:
                self.hire()
                self.changed.wait()
        return job.reply

    def hire(self) -> None:
        """Fill the empty seats. Only callers of ``map`` fork: a keeper could catch them inside torch."""
        if self.closing:
            raise RuntimeError("this worker pool is closed")
        for seat in self.seats:
            if seat.worker is None:
                seat.worker = Worker(self.function, self.start)
                self.changed.notify_all()
            if seat.keeper is None:
                seat.keeper = threading.Thread(target=self.keep, args=(seat,), daemon=True)
                seat.keeper.start()

    def keep(self, seat: _Seat) -> None:
        """The life of a keeper thread; should it fail, the pool closes rather than hang."""
        try:
            while worker := self.feed(seat):
                try:
                    message = worker.receive(self.timeout)
                except Exception as error:  # its end, its silence, or noise from damaged memory
                    self.bury(seat, worker, isinstance(error, TimeoutError))
                else:
                    self.deliver(seat, message)
        finally:
            self.stop()
            if seat.worker:
                self.bury(seat, seat.worker, timed_out=True)

    def feed(self, seat: _Seat) -> Worker | None:
        """Hand over what the seat's worker can hold; return it once it has something to say."""
        with self.changed:
            while not self.closing:
                worker = seat.worker
                if worker and worker.ready:
                    self.hand_out(worker, seat.jobs)
                if worker and (seat.jobs or not worker.ready):
                    return worker
                self.changed.wait()
        return None

    def hand_out(self, worker: Worker, jobs: deque[_Job]) -> None:
        while self.pending and len(jobs) < 2:
            idle = sum(not seat.jobs for seat in self.seats)
            if jobs and (len(self.pending) <= idle or len(self.pending[0].task) > _NEVER_BLOCKS):
                return
            job = self.pending.popleft()
            if not job.cancelled:
                jobs.append(job)
                worker.send(job.task)

    def deliver(self, seat: _Seat, message: Message) -> None:
        with self.changed:
            if seat.jobs:
                seat.jobs.popleft().reply = message
                self.stillborn = 0
            elif message:
                self.fail(message)  # what `start` raised
            self.changed.notify_all()

    def bury(self, seat: _Seat, worker: Worker, timed_out: bool) -> None:
        with self.changed:
            seat.worker = None
            how = worker.end(patience=0 if timed_out else 1)
            if seat.jobs and timed_out:
                seat.jobs.popleft().reply = Failure(f"no answer after {self.timeout:g} s", "timeout")
            elif seat.jobs and worker.in_task:
                seat.jobs.popleft().reply = Failure(f"the worker process reading it died ({how})", "crash")
            self.pending.extendleft(reversed(seat.jobs))
            seat.jobs.clear()
            self.stillborn += not worker.tasks_started
            if self.stillborn >= _MAX_STILLBORN:
                text = f"{_MAX_STILLBORN} worker processes in a row died before their first task ({how}): "
                self.fail(TagError(text + "num_workers=0 may show why"))
                self.stillborn = 0
            self.changed.notify_all()  # a caller may hire

    def fail(self, reply: Message | Exception) -> None:
        for job in self.pending:
            job.reply = reply
        self.pending.clear()
        self.changed.notify_all()

    def stop(self) -> None:
        if os.getpid() != self.owner:  # a forked copy, whose workers are its parent's
            return
        with self.changed:
            self.closing = True
            for seat in self.seats:
                self.pending.extend(seat.jobs)
                seat.jobs.clear()
                if seat.worker:
                    seat.worker.kill()
            self.fail(RuntimeError("this worker pool was closed meanwhile"))
