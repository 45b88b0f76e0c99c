"""A component's typed signature, read as its configuration; pydantic does the checking."""

from __future__ import annotations

import inspect
import json
import sys
import types
import typing
from typing import Any, Literal, Union

from tag_core.catalog import Entry, did_you_mean
from tag_core.errors import PluginError
from tag_core.kinds import kind_of

MISSING: Any = inspect.Parameter.empty


def signature(target: Any, entry: Entry | None = None) -> dict[str, tuple[Any, Any]]:
    """Parameter -> (annotation, default) of a component's class or function.

    Raises:
        PluginError: a parameter without a type, or ``*args``/``**kwargs``.
    """
    where = f"{entry.kind} {entry.name} (from {entry.plugin.origin})" if entry else getattr(target, "__name__", "")
    function = target.__init__ if inspect.isclass(target) else target
    if "torch" in sys.modules and function is sys.modules["torch"].nn.Module.__init__:
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
    """(kind, is a list) where an option is itself a component or a list of them."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        inner = [a for a in typing.get_args(annotation) if a is not type(None)]
        return nested_kind(inner[0]) if len(inner) == 1 else None
    if typing.get_origin(annotation) is list:
        kind = kind_of(typing.get_args(annotation)[0])
        return (kind, True) if kind else None
    kind = kind_of(annotation)
    return (kind, False) if kind else None


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
        raise ValueError(f"a recipe cannot set an option of type {type_name(annotation)}") from None
    except ValidationError as error:
        expected = type_name(annotation)
        choices = [str(choice) for choice in _choices(annotation) if isinstance(choice, str)]
        hint = did_you_mean(str(value), choices)
        where = error.errors()[0]["loc"] if not choices else ()
        at = f" (at {'.'.join(map(str, where))})" if where and isinstance(value, (list, dict)) else ""
        raise ValueError(f"expected {expected}, got {show_value(value)}{at}{hint}") from None


def _choices(annotation: Any) -> list[Any]:
    """What the Literals in an annotation allow."""
    arguments = typing.get_args(annotation)
    return list(arguments) if typing.get_origin(annotation) is Literal else [c for a in arguments for c in _choices(a)]


def type_name(annotation: Any) -> str:
    """An annotation as a user reads it: ``int``, ``'mean' or 'sum'``, ``list of str``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join("nothing" if a is type(None) else type_name(a) for a in arguments)
    if origin is list:
        return f"list of {type_name(arguments[0])}"
    if origin is not None:
        inner = ", ".join("..." if a is ... else type_name(a) for a in arguments)
        return f"{getattr(origin, '__name__', origin)} of {inner}"
    return "true or false" if annotation is bool else getattr(annotation, "__name__", str(annotation))


def show_value(value: Any) -> str:
    text = repr(str(value)) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
