"""A component's options, read from its source text without importing it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from tag_core.catalog import source_file


@dataclass(frozen=True)
class Option:
    """One parameter as its source says it; ``default`` is None where the option is required."""

    name: str
    type: str
    default: str | None
    help: str


def read_options(target: str) -> list[Option]:
    """The options of a class or function, in order; empty where the source cannot be found."""
    module, _, attribute = target.partition(":")
    found = _lookup(module, attribute)
    if found and isinstance(found[0], ast.ClassDef):
        return list(_of_class(found[0], found[1]).values())
    if found and isinstance(found[0], ast.FunctionDef):
        return list(_of_function(found[0], found[1], ast.get_docstring(found[0]) or "").values())
    return []


def _of_class(node: ast.ClassDef, module: str) -> dict[str, Option]:
    """Of the constructor, of a dataclass's fields, or of the first base that has either."""
    text = ast.get_docstring(node) or ""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _of_function(item, module, f"{text}\n{ast.get_docstring(item) or ''}")
    options: dict[str, Option] = {}
    for base in reversed([b for b in node.bases if isinstance(b, ast.Name)]):
        found = _lookup(module, base.id)
        if found and isinstance(found[0], ast.ClassDef):
            options |= _of_class(found[0], found[1])
    if any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
        for field in node.body:
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                options |= _of_field(field, field.target.id, module)
    notes = _argument_notes(text)
    return {name: replace(option, help=notes.get(name, option.help)) for name, option in options.items()}


def _of_field(field: ast.AnnAssign, name: str, module: str) -> dict[str, Option]:
    default, kind = field.value, _text(field.annotation, module)
    if isinstance(default, ast.Call) and ast.unparse(default.func).endswith("field"):
        arguments = {keyword.arg: keyword.value for keyword in default.keywords}
        if ast.unparse(arguments.get("init", ast.Constant(True))) == "False":
            return {}
        factory = arguments.get("default_factory")
        default = ast.Call(factory, [], []) if factory else arguments.get("default")
    if kind.startswith("ClassVar"):
        return {}
    return {name: Option(name, kind, _text(default, module) if default else None, "")}


def _of_function(node: ast.FunctionDef, module: str, docstring: str) -> dict[str, Option]:
    notes, arguments = _argument_notes(docstring), node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return {
        argument.arg: Option(
            argument.arg,
            _text(argument.annotation, module) if argument.annotation else "",
            _text(default, module) if default is not None else None,
            notes.get(argument.arg, ""),
        )
        for argument, default in pairs
        if argument.arg != "self"
    }


def _text(node: ast.expr, module: str) -> str:
    """An annotation or default as a reader wants it: names of constants and of types spelt out."""
    if isinstance(node, ast.Name) and (found := _lookup(module, node.id)):
        value = getattr(found[0], "value", None)
        if isinstance(value, (ast.Constant, ast.Tuple, ast.List, ast.Dict, ast.Subscript, ast.BinOp, ast.UnaryOp)):
            return ast.unparse(value)
    return ast.unparse(node)


def _lookup(module: str, name: str, depth: int = 0) -> tuple[ast.stmt, str] | None:
    """The statement that defines a module's name, and the module it is in, following imports."""
    tree = _tree(module)
    for node in tree.body if tree else ():
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node, module
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and name in _assigned(node):
            return node, module
        if isinstance(node, ast.ImportFrom) and depth < 5:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return _lookup(_absolute(module, node), alias.name, depth + 1)
    return None


def _assigned(node: ast.Assign | ast.AnnAssign) -> Iterator[str]:
    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
        if isinstance(target, ast.Name):
            yield target.id


@cache
def _tree(module: str) -> ast.Module | None:
    path = source_file(module)
    if path is None or path.suffix != ".py":
        return None
    try:
        return ast.parse(path.read_text("utf-8"))
    except (OSError, ValueError, SyntaxError):
        return None


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _argument_notes(docstring: str) -> dict[str, str]:
    """``name: text`` lines under ``Args:``, continuation lines joined."""
    notes: dict[str, str] = {}
    name, indent, inside = "", 0, False
    for line in docstring.splitlines():
        stripped, depth = line.strip(), len(line) - len(line.lstrip())
        match = re.match(r"`{0,2}(\w+)`{0,2}\s*(?:\([^)]*\))?:\s*(.*)", stripped)
        if stripped == "Args:":
            inside, indent, name = True, -1, ""
        elif re.fullmatch(r"(Returns|Raises|Yields|Example|Examples|Shape|Note):.*", stripped):
            inside = False
        elif inside and match and (indent < 0 or depth <= indent):
            name, indent = match[1], depth
            notes[name] = match[2]
        elif inside and stripped and name and depth > indent:
            notes[name] += f" {stripped}"
    return notes
