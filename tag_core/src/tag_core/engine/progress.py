"""Progress on a terminal, silence elsewhere."""

from __future__ import annotations

from tqdm import tqdm


class Progress(tqdm):  # type: ignore[misc]
    """A bar on standard error, only on a terminal and on the main rank."""

    def __init__(self, label: str, total: int, start: int = 0, main: bool = True) -> None:
        super().__init__(desc=label, total=total, initial=start, disable=None if main else True, leave=False)

    def advance(self, count: int) -> None:
        self.update(count)
