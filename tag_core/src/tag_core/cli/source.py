"""A component's options, read from its source text without importing it."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

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
    found = _find(module, attribute)
    if found is None:
        return []
    node, text = found
    notes = _argument_notes(text)
    arguments = node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return [
        Option(
            argument.arg,
            ast.unparse(argument.annotation) if argument.annotation else "",
            ast.unparse(default) if default is not None else None,
            notes.get(argument.arg, ""),
        )
        for argument, default in pairs
        if argument.arg != "self"
    ]


def _find(module: str, attribute: str, depth: int = 0) -> tuple[ast.FunctionDef, str] | None:
    """The function that takes the options, and the docstrings that may describe them."""
    path = source_file(module)
    if path is None or path.suffix != ".py" or depth > 5:
        return None
    tree = ast.parse(path.read_text("utf-8"))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            return node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and node.name == attribute:
            return _constructor(node, module, depth)
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                if (alias.asname or alias.name) == attribute:
                    return _find(_absolute(module, node), alias.name, depth + 1)
    return None


def _constructor(node: ast.ClassDef, module: str, depth: int) -> tuple[ast.FunctionDef, str] | None:
    text = ast.get_docstring(node) or ""
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return item, f"{text}\n{ast.get_docstring(item) or ''}"
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := _find(module, base.id, depth + 1)):
            return found[0], f"{found[1]}\n{text}"
    return None


def _absolute(module: str, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    parents = module.split(".")[: -node.level]
    return ".".join([*parents, node.module or ""])


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
