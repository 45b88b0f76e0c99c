"""Nearest-neighbour search for Tag; :mod:`tag_plugins_search.plugin` lists what is in here."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tag_plugins_search.answers import search
    from tag_plugins_search.store import IndexFolder

__all__ = ["IndexFolder", "search"]


def __getattr__(name: str) -> Any:
    """They import numpy and faiss, so they are fetched when first used."""
    if name in __all__:
        from tag_plugins_search import answers

        return getattr(answers, name)
    raise AttributeError(f"module 'tag_plugins_search' has no attribute {name!r}")
