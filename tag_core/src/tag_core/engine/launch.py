"""``--procs N``: start the same command N times on this machine, as torchrun would.

When one process dies, its output is shown and the others are ended; when the launcher dies, however
suddenly, the processes notice that their standard input closed, and end.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Any

GRACE_SECONDS = 3.0


def launch(procs: int) -> int:
    """Run this process's own command line in ``procs`` processes; returns the exit code."""
    arguments = _without_procs(sys.argv[1:])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    logs: list[IO[bytes] | None] = [None, *(tempfile.TemporaryFile() for _ in range(procs - 1))]  # noqa: SIM115
    ranks = [_start(arguments, rank, procs, port, logs[rank]) for rank in range(procs)]
    before = signal.signal(signal.SIGTERM, lambda number, frame: _signal_all(ranks, number))
    try:
        return _watch(ranks, logs)
    except KeyboardInterrupt:
        # The terminal sent it to every process; each saves a checkpoint and ends.
        return max((abs(rank.wait()) for rank in ranks), default=130)
    finally:
        signal.signal(signal.SIGTERM, before)
        for rank in ranks:
            if rank.poll() is None:
                rank.kill()
                rank.wait()


def end_with_parent() -> None:
    """In a launched process: end when the launcher does, so that no orphan goes on writing."""
    if os.environ.get("TAG_LAUNCHED") != "1":
        return

    def wait() -> None:
        while os.read(0, 1024):  # not sys.stdin: its lock would outlive this thread at exit
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start(arguments: list[str], rank: int, procs: int, port: int, log: IO[bytes] | None) -> subprocess.Popen[bytes]:
    threads = max((os.cpu_count() or 1) // procs, 1)
    environment = {
        "OMP_NUM_THREADS": str(threads),
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(procs),
        "LOCAL_WORLD_SIZE": str(procs),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TAG_LAUNCHED": "1",
    }
    command = [sys.executable, "-m", "tag_core.cli.main", *arguments]
    output: Any = subprocess.DEVNULL if rank else None
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=log)


def _watch(ranks: list[subprocess.Popen[bytes]], logs: list[IO[bytes] | None]) -> int:
    first: int | None = None  # to end otherwise than well: the others' troubles follow from its
    deadline = float("inf")
    while True:
        codes = [rank.poll() for rank in ranks]
        if first is None:
            first = next((number for number, code in enumerate(codes) if code), None)
        if deadline == float("inf") and any(code not in (None, 0, 3) for code in codes):
            deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    if first is None or all(code in (0, 3) for code in codes):
        return max(code or 0 for code in codes)
    # A process that ended with a message for the user is the cause; losing contact with it, the effect.
    return _blame(next((number for number, code in enumerate(codes) if code in (2, 3)), first), ranks, logs)


def _blame(number: int, ranks: list[subprocess.Popen[bytes]], logs: list[IO[bytes] | None]) -> int:
    """Show why a process ended; returns its exit code."""
    code = int(ranks[number].returncode)
    if code in (2, 3, 130) and ranks[0].poll() == code:  # the same mistake met every process, and the first has said so
        return code
    if log := logs[number]:
        log.seek(0)
        sys.stderr.buffer.write(log.read()[-20_000:])
    if code < 0:
        print(f"error: process {number} of {len(ranks)} died ({signal.Signals(-code).name})", file=sys.stderr)
    else:
        print(f"error: process {number} of {len(ranks)} failed; the run has ended", file=sys.stderr)
    return code if code > 0 else 1


def _signal_all(ranks: list[subprocess.Popen[bytes]], number: int) -> None:
    for rank in ranks:
        if rank.poll() is None:
            rank.send_signal(number)


def _without_procs(arguments: list[str]) -> list[str]:
    kept, waiting = [], iter(arguments)
    for argument in waiting:
        if argument == "--procs":
            next(waiting, None)
        elif not argument.startswith("--procs="):
            kept.append(argument)
    return kept
