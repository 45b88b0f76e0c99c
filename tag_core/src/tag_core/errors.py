"""Everything that Tag raises on purpose.

::

    TagError                    exit code 1: base of all; its text is meant for the user
    ├── UserError               exit code 2: the user can put it right
    │   ├── ConfigError         a recipe or an override is wrong (all mistakes at once)
    │   ├── UnknownName         no component, recipe or plugin of that name; the text has the nearest
    │   ├── PluginError         a plugin is broken, built for another version, or claims a taken name
    │   ├── WeightsError        weights are missing, damaged, unreachable or of another model
    │   ├── CheckpointError     a checkpoint cannot be read, written or resumed
    │   └── RunFolderError      a run folder cannot be created, read or written
    └── UnreadableInput         exit code 3: one video or image cannot be read

A message says what went wrong, where, why, and what to do next.
"""

from __future__ import annotations


class TagError(Exception):
    exit_code = 1


class UserError(TagError):
    exit_code = 2


class ConfigError(UserError):
    """``problems`` holds one line per mistake."""

    def __init__(self, where: str, problems: list[str]) -> None:
        super().__init__(where, problems)
        self.where, self.problems = where, problems

    def __str__(self) -> str:
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return "\n  - ".join([f"{self.where}: {count}", *self.problems])


class UnknownName(UserError): ...


class PluginError(UserError): ...


class WeightsError(UserError): ...


class CheckpointError(UserError): ...


class RunFolderError(UserError): ...


class UnreadableInput(TagError):
    """One input that cannot be read. A run records it and goes on.

    Args:
        source: path of the input, as the user wrote it.
        reason: why it cannot be read, in one line.
    """

    exit_code = 3

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"
