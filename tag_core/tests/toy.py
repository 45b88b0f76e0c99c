"""A plugin in one file, for tests of recipes and configuration; nothing in it runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tag_core import Component, hookimpl
from tag_core.kinds import Backbone, Dataset, Loss, Transform


def _own(name: str, attribute: str) -> Component:
    return Component(name, f"{__name__}:{attribute}", f"A {name}")


@hookimpl
def tag_datasets() -> list[Component]:
    return [_own("clips", "Clips"), _own("pictures", "Pictures"), _own("both", "Both")]


@hookimpl
def tag_transforms() -> list[Component]:
    return [_own("flip", "Flip"), _own("crop", "Crop")]


@hookimpl
def tag_tasks() -> list[Component]:
    return [_own("task", "Task"), _own("untyped", "Untyped"), _own("arrays", "Arrays")]


@hookimpl
def tag_backbones() -> list[Component]:
    return [_own("net", "Net"), _own("other", "Other")]


class _Anything:
    """Has the methods of every kind."""

    feature_dim = 1

    def __call__(self, *inputs: object) -> None: ...

    predict = records = __call__


class Flip(_Anything):
    def __init__(self, share: float = 0.5) -> None: ...


class Crop(_Anything):
    def __init__(self, size: tuple[int, int] = (8, 8)) -> None: ...


class Clips:
    def __init__(
        self,
        source: str | list[str],
        labelled: bool = True,
        frames: int = 8,
        random: bool = False,
        sampler: Literal["segments", "dense"] = "segments",
        transforms: list[Transform] = [],
    ) -> None: ...


class Pictures(_Anything):
    __len__ = __getitem__ = key = _Anything.__call__

    def __init__(self, source: str | list[str], labelled: bool = True, size: int | None = None) -> None:
        self.source, self.labelled, self.size = source, labelled, size


class Both(Pictures):
    def __init__(self, source: str, inner: Callable[..., Dataset], labelled: bool = True) -> None:
        self.inner = inner(source=f"{source}/inner", labelled=labelled, depth=3)


class Net(_Anything):
    def __init__(self, width: int = 8, rates: list[float] = [0.1]) -> None:
        if width % 2:
            raise ValueError(f"width must be even, got {width}")
        self.width, self.rates = width, rates


class Other(_Anything):
    def __init__(self, depth: int, names: dict[str, int] = {}) -> None:
        self.depth, self.names = depth, names


class Task(_Anything):
    def __init__(self, backbone: Backbone, loss: Loss, classes: list[str], extra: Backbone | None = None) -> None:
        self.backbone, self.loss, self.classes, self.extra = backbone, loss, classes, extra


class Untyped:
    def __init__(self, backbone, *rest) -> None: ...  # type: ignore[no-untyped-def]


class Thing:
    pass


class Arrays:
    def __init__(self, classes: list[str], thing: Thing | None = None) -> None: ...
