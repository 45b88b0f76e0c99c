"""A component's typed signature, read as its configuration; pydantic does the checking."""

from __future__ import annotations

import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Union

from tag_core.catalog import Entry, did_you_mean
from tag_core.errors import PluginError
from tag_core.kinds import kind_of

MISSING: Any = inspect.Parameter.empty


def signature(target: Any, entry: Entry | None = None) -> dict[str, tuple[Any, Any]]:
    """Parameter -> (annotation, default) of a component's class or function.

    Raises:
        PluginError: a parameter without a type, or ``*args``/``**kwargs``.
    """
    where = entry or target.__name__
    function = target.__init__ if inspect.isclass(target) else target
    if getattr(function, "__module__", "") == "torch.nn.modules.module":
        return {}  # a module without a constructor of its own
    try:
        hints = typing.get_type_hints(function)
    except Exception as error:
        raise PluginError(f"{where}: its type annotations cannot be read: {error}") from error
    result = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) or name not in hints:
            raise PluginError(f"{where}: parameter {name!r} needs a type and a keyword; *args, **kwargs are no options")
        result[name] = (hints[name], parameter.default)
    return result


def nested_kind(annotation: Any) -> tuple[str, bool] | None:
    """(kind, is a list) where an option is itself a component, perhaps None, or a list of them."""
    if is_factory(annotation):
        return nested_kind(typing.get_args(annotation)[1])
    if typing.get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return nested_kind(inner[0]) if len(inner) == 1 else None
    many = typing.get_origin(annotation) is list
    kind = kind_of(typing.get_args(annotation)[0] if many else annotation)
    return (kind, many) if kind else None


def is_factory(annotation: Any) -> bool:
    """Whether an option is a component that its owner builds itself: ``Callable[..., Task]``."""
    return typing.get_origin(annotation) is Callable and bool(kind_of(typing.get_args(annotation)[1]))


def check_type(annotation: Any, value: Any) -> Any:
    """``value`` as ``annotation`` wants it: strict, but lists make tuples and 1 makes 1.0.

    Raises:
        ValueError: saying what was expected and what was given.
    """
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticUserError

    try:
        return TypeAdapter(annotation).validate_json(json.dumps(value, default=str), strict=True)
    except PydanticUserError:
        raise ValueError("a recipe cannot set this option; leave it out") from None
    except ValidationError as error:
        found = error.errors()
        reasons = " or ".join(dict.fromkeys(each["msg"] for each in found)).replace("Input should be", "expected")
        items = [str(part) for part in found[0]["loc"] if isinstance(part, int)]
        at = f" (at {'.'.join(items)})" if items else ""
        hint = did_you_mean(str(value), re.findall(r"'([^']+)'", reasons))
        raise ValueError(f"{reasons}, got {show_value(value)}{at}{hint}") from None


def show_value(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    brackets = isinstance(value, str) and value.startswith(("[", "{"))
    return (text if len(text) <= 60 else f"{text[:57]}...") + " (text, no valid TOML)" * brackets
