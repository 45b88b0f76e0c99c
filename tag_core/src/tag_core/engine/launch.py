"""``--procs N``: start the same command N times on this machine, as torchrun would.

Soon after one process has failed the others are ended; all end with the launcher.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import IO, Any

_GRACE_SECONDS = 3.0  # in which the others make the same mistake, or notice that one is gone


def launch(procs: int) -> int:
    """Run this process's own command line in ``procs`` processes; returns the exit code."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        "OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // procs, 1)),
        **os.environ,
        "WORLD_SIZE": str(procs),
        "LOCAL_WORLD_SIZE": str(procs),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TAG_LAUNCHED": str(os.getpid()),
    }
    ranks: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, frame: Any) -> None:
        for rank in ranks:
            rank.send_signal(number)

    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, pass_on)
    command = [sys.executable, "-m", "tag_core.cli.main", *sys.argv[1:]]
    logs: list[IO[bytes]] = [tempfile.TemporaryFile() for _ in range(procs)]  # noqa: SIM115
    for number, log in enumerate(logs):
        environment["RANK"] = environment["LOCAL_RANK"] = str(number)
        talk: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": log} if number else {}  # rank 0 speaks for all
        # In a session of its own each gets Ctrl-C once, from here.
        ranks.append(subprocess.Popen(command, env=environment, start_new_session=True, **talk))
    codes, failed = _wait(ranks)
    for rank in ranks:
        rank.kill()
        rank.wait()
    return _explain(failed, codes, logs) if failed else max(code or 0 for code in codes)


def _wait(ranks: list[subprocess.Popen[bytes]]) -> tuple[list[int | None], list[int]]:
    """Until all have ended, or one failed some seconds ago: the exit codes, and who failed, the first one first."""
    codes: list[int | None] = [None]
    failed: dict[int, float] = {}
    while None in codes and time.monotonic() < min(failed.values(), default=math.inf) + _GRACE_SECONDS:
        time.sleep(0.05)
        codes = [rank.poll() for rank in ranks]
        for number, code in enumerate(codes):
            if code not in (None, 0, 3, 130):
                failed.setdefault(number, time.monotonic())
    return codes, list(failed)


def _explain(failed: list[int], codes: list[int | None], logs: list[IO[bytes]]) -> int:
    """Show what those processes said that failed and could not be heard; returns the exit code of the first cause."""
    # One that ended with a message for the user is the cause; that others lost contact with it, the effect.
    told = [number for number, code in enumerate(codes) if code in (2, 3)]
    for number in told[:1] or failed:
        code = codes[number] or 0
        if number not in told or code != codes[0]:
            logs[number].seek(0)
            sys.stderr.buffer.write(logs[number].read()[-20_000:])
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            print(f"error: process {number} of {len(codes)} failed ({how})", file=sys.stderr)
    return max(codes[(told or failed)[0]] or 0, 1)
