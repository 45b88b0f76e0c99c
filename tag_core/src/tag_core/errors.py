"""Everything that Tag raises on purpose.

::

    TagError                    exit code 1
    ├── UserError               exit code 2: the user can fix it
    │   ├── ConfigError         a recipe or an override is wrong (all mistakes at once)
    │   ├── UnknownName         no component, recipe or plugin of that name
    │   ├── PluginError         a plugin cannot be used
    │   ├── WeightsError        a weights file is missing, damaged or does not fit
    │   ├── CheckpointError     a checkpoint cannot be read, written or resumed
    │   └── RunFolderError      a run folder cannot be read or written
    └── UnreadableInput         exit code 3: one video or image cannot be read

A message says what went wrong, where, why, and what to do next.
"""

from __future__ import annotations


class TagError(Exception):
    """Base of every deliberate error; its text is meant for the user."""

    exit_code = 1


class UserError(TagError):
    """Something the user can put right."""

    exit_code = 2


class ConfigError(UserError):
    """A recipe or override is wrong; ``problems`` holds one line per mistake."""

    def __init__(self, where: str, problems: list[str]) -> None:
        self.where, self.problems = where, problems
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{where}: {count}\n" + "\n".join(f"  - {line}" for line in problems))

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str, list[str]]]:
        return type(self), (self.where, self.problems)


class UnknownName(UserError):
    """A name that nothing answers to; the text carries the nearest ones."""


class PluginError(UserError):
    """A plugin is broken, built for another version, or claims a taken name."""


class WeightsError(UserError):
    """Weights that are missing, damaged, unreachable or of another model."""


class CheckpointError(UserError):
    """A checkpoint that cannot be read, written or resumed from."""


class RunFolderError(UserError):
    """A run folder that cannot be created, read or written."""


class UnreadableInput(TagError):
    """One input that cannot be read. A run records it and goes on.

    Args:
        source: path of the input, as the user wrote it.
        reason: why it cannot be read, in one line.
    """

    exit_code = 3

    def __init__(self, source: str, reason: str) -> None:
        self.source, self.reason = source, reason
        super().__init__(f"{source}: {reason}")

    def __reduce__(self) -> tuple[type[UnreadableInput], tuple[str, str]]:
        return type(self), (self.source, self.reason)
