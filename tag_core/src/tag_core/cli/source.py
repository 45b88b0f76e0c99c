"""A component's options, read from its source text: nothing of the plugin is imported."""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass, replace
from functools import cache

from tag_core.catalog import source_file


@dataclass(frozen=True)
class Option:
    """One parameter as its source says it; ``default`` is None where the option is required."""

    name: str
    type: str
    default: str | None
    help: str = ""


def read_options(target: str) -> list[Option]:
    """The options of a class or function, in order; empty where the source cannot be found."""
    module, _, attribute = target.partition(":")
    return list(_options(*_find(module, attribute)).values())


def _options(node: ast.stmt | None, module: str) -> dict[str, Option]:
    if isinstance(node, ast.FunctionDef):
        options = _of_function(node.args, module)
    elif isinstance(node, ast.ClassDef):
        options = _of_class(node, module)
    else:
        return {}
    notes = _notes(ast.get_docstring(node) or "")
    return {name: replace(option, help=notes.get(name, option.help)) for name, option in options.items()}


def _of_class(node: ast.ClassDef, module: str) -> dict[str, Option]:
    """Of the constructor; without one, of the bases' and of a dataclass's fields."""
    options: dict[str, Option] = {}
    for base in reversed(node.bases):
        options |= _options(*_find(module, ast.unparse(base)))
    is_dataclass = any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            return _options(item, module)
        if is_dataclass and isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation):
            name = ast.unparse(item.target)
            options[name] = Option(name, _text(item.annotation, module) or "", _text(item.value, module))
    return options


def _of_function(node: ast.arguments, module: str) -> dict[str, Option]:
    positional = [*node.posonlyargs, *node.args]
    required = [None] * (len(positional) - len(node.defaults))
    pairs = zip([*positional, *node.kwonlyargs], [*required, *node.defaults, *node.kw_defaults], strict=True)
    return {
        argument.arg: Option(argument.arg, _text(argument.annotation, module) or "", _text(default, module))
        for argument, default in pairs
        if argument.arg != "self"
    }


def _text(node: ast.expr | None, module: str) -> str | None:
    """An annotation or default as it is written; a name of a constant or type is spelt out."""
    if isinstance(node, ast.Name):
        node = getattr(_find(module, node.id)[0], "value", None) or node
    return ast.unparse(node) if node else None


def _find(module: str, name: str, imports: int = 5) -> tuple[ast.stmt | None, str]:
    """The statement that defines a module's name, through so many imports, and the module it stands in."""
    statements, package = _parse(module)
    for node in statements:
        if isinstance(node, ast.ImportFrom) and imports:
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            for alias in node.names:
                if name == (alias.asname or alias.name):
                    return _find(f"{above}.{node.module or ''}".strip("."), alias.name, imports - 1)
        elif name in _defined(node):
            return node, module
    return None, module


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [ast.unparse(target) for target in targets]


@cache
def _parse(module: str) -> tuple[list[ast.stmt], str]:
    """A module's statements, and the package that its relative imports start from."""
    path = source_file(module)
    try:
        statements = ast.parse(path.read_text("utf-8")).body if path and path.suffix == ".py" else []
    except (OSError, ValueError, SyntaxError):
        statements = []
    return statements, module if path and path.stem == "__init__" else module.rpartition(".")[0]


def _notes(docstring: str) -> dict[str, str]:
    """``name: text`` under ``Args:``, the lines of each joined."""
    section = re.split(r"\n(?=\S)", f"\n{docstring}".partition("\nArgs:\n")[2])[0]
    entries = re.findall(r"^`*(\w+)`*(?: \(.*?\))?:(.*(?:\n .*|\n)*)", textwrap.dedent(section), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}
