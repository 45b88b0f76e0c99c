"""A real PostgreSQL with pgvector for tests, from the binaries that PyPI's pgserver carries."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NOBODY = 65534


def binaries() -> Path | None:
    spec = importlib.util.find_spec("pgserver")  # not imported: it would make a system user and change rights
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


def user() -> dict[str, Any]:
    """PostgreSQL does not run as root."""
    return {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}


def why_not() -> str:
    """Why no server can be started here; empty where it can."""
    folder = binaries()
    if folder is None:
        return "pgserver is not installed"
    try:
        done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, **user())
    except OSError as error:
        return f"PostgreSQL cannot be run here (as root it runs as 'nobody'): {error}"
    return done.stderr


@contextmanager
def server() -> Iterator[str]:
    """The dsn of a new, empty server, reached through a socket; stopped and deleted at the end."""
    tools, account = binaries(), user()
    assert tools is not None
    folder = Path(tempfile.mkdtemp(prefix="tag-pg-", dir="/tmp"))  # a short path, which 'nobody' can reach
    if account:
        os.chown(folder, NOBODY, NOBODY)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "check": True, "cwd": folder, **account}
    control = [str(tools / "pg_ctl"), "-D", str(folder / "data"), "-w", "-l", str(folder / "log")]
    try:
        start = ["-U", "postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        subprocess.run([str(tools / "initdb"), "-D", str(folder / "data"), *start], **quiet)
        subprocess.run([*control, "-o", f"-h '' -k {folder} -F", "start"], **quiet)
        yield f"host={folder} user=postgres dbname=postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], **{**quiet, "check": False})
        shutil.rmtree(folder, ignore_errors=True)
