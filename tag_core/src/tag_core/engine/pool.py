"""A pool of worker processes that outlives what video decoders do: crash, hang, or refuse a file.

::

    the thread inside map()       a keeper thread per worker          worker processes
    queues tasks, forks   ────>   hands on one task at a time   ───>  run the function
    yields in order       <────   waits for its answer          <──   answer through another pipe

Keepers read while the caller computes. When a worker dies, only the task it was running is lost.
For Linux and macOS; elsewhere ``num_workers=0``.
"""

from __future__ import annotations

import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from itertools import islice
from queue import SimpleQueue
from typing import Any, Generic, Self

from tag_core.engine.worker import Failure, Message, R, T, Worker, attempt

__all__ = ["Failure", "WorkerPool"]


class WorkerPool(Generic[T, R]):
    """Runs ``function`` on each task, in processes whose death costs one task.

    Args:
        function: from a task to its result; raises ``UnreadableInput`` for an input to pass over.
        num_workers: processes; 0 runs ``function`` in this one, unprotected from crashes and hangs.
        timeout: seconds that one task may take.
    """

    def __init__(self, function: Callable[[T], R], num_workers: int, *, timeout: float = 60.0) -> None:
        self._function, self._size, self._timeout = function, num_workers, timeout
        self._queue: SimpleQueue[tuple[bytes, Future[Message | Failure]] | None] = SimpleQueue()
        self._workers: dict[Future[Any], Worker] = {}
        """By a future that is done when the worker's keeper is."""
        self._closed = False

    def map(self, tasks: Iterable[T], ahead: int) -> Iterator[tuple[T, R | Failure]]:
        """Yield each task with its result or ``Failure``, in order.

        At most ``ahead`` tasks are taken and not yet yielded. Maps may be left halfway, and may overlap.
        Whatever else ``function`` raises is raised here, with the worker's traceback as a note.
        """
        if not self._size:
            yield from ((task, attempt(self._function, task)) for task in tasks)
            return
        window: deque[tuple[T, Future[Message | Failure]]] = deque()
        source = iter(tasks)
        try:
            while True:
                for task in islice(source, max(ahead, 1) - len(window)):
                    window.append((task, Future()))
                    self._queue.put((pickle.dumps(task), window[-1][1]))
                if not window:
                    return
                result = self._wait_for(window[0][1])
                yield window.popleft()[0], result
        finally:
            for _, answer in window:
                answer.cancel()

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        self._closed = True
        for worker in self._workers.values():
            self._queue.put(None)
            worker.end()
        wait(self._workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _wait_for(self, answer: Future[Message | Failure]) -> Any:
        """Replaces workers that die meanwhile; a keeper must not, its fork could catch this thread inside torch."""
        while not self._closed and not answer.done():
            self._workers = {ended: worker for ended, worker in self._workers.items() if not ended.done()}
            while len(self._workers) < self._size:
                worker, ended = Worker(self._function), Future[Any]()
                self._workers[ended] = worker
                threading.Thread(target=self._keep, args=(worker, ended), daemon=True).start()
            wait({answer, *self._workers}, return_when=FIRST_COMPLETED)
        if self._closed:
            raise RuntimeError("this worker pool is closed")
        message = answer.result()
        if isinstance(message, Failure):
            return message
        result = pickle.loads(message[0], buffers=message[1:])
        if isinstance(result, Exception):
            raise result
        return result

    def _keep(self, worker: Worker, ended: Future[Any]) -> None:
        """The life of a keeper thread, which is its worker's."""
        while worker.is_alive() and (item := self._queue.get()):
            task, answer = item
            if not worker.is_alive():  # it died of no task: this one is for its successor
                self._queue.put(item)
            elif answer.set_running_or_notify_cancel():
                answer.set_result(worker.run(task, self._timeout))
        ended.set_result(None)
