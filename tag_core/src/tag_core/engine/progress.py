"""Progress on a terminal, silence elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm


class Progress:
    """A bar on standard error, only on a terminal and on the main rank."""

    def __init__(self, label: str, total: int, start: int = 0, main: bool = True) -> None:
        shown = main and sys.stderr.isatty()
        self._bar = tqdm(desc=label, total=total, initial=start, disable=not shown, leave=False, file=sys.stderr)

    def advance(self, count: int) -> None:
        self._bar.update(count)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
