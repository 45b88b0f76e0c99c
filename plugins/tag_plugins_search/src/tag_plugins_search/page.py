"""A self-contained page of queries and their nearest entries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader

from tag_core.errors import UnreadableInput, UserError
from tag_core.files import write_text
from tag_core.records import Record
from tag_plugins_search.entries import box_of, id_of
from tag_plugins_search.evaluation import Labels
from tag_plugins_search.store import IndexFolder
from tag_plugins_search.thumbnails import thumbnail

MOST = 100  # queries with pictures in one page
TITLE = "Tag search</title>"


def check_page(file: str | Path) -> None:
    """Raises UserError: the file is there and is no page of an earlier query, and would be lost."""
    try:
        with open(file, "rb") as opened:
            start = opened.read(4096)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise UserError(f"{file}: is there already, and cannot be read: {error.strerror}") from error
    if start and TITLE.encode() not in start:
        hint = "name a new file, such as answers.html, or remove this one"
        raise UserError(f"{file}: is there already, and is no page of 'tag-run search query'; {hint}")


def write_page(file: str | Path, answers: Iterable[Record], index: IndexFolder, reranked: bool = False) -> int:
    """Write the rank lists of the first 100 answers of :func:`tag_plugins_search.answers.search`.

    Pictures are made from the sources, and lie in the page. Queries whose label another entry has are counted, by their
    nearest neighbour but themselves, as :func:`tag_plugins_search.evaluation.evaluate` does for ``recall@1``; of these,
    neighbours that have a label are marked right or wrong. Relative sources of the index's entries are looked for in
    the folder that it was built in, then in the current one; those of queries the other way round.

    Args:
        reranked: whether the answers' distances are those of re-ranking.

    Returns:
        How many pictures could not be shown; the page says why.

    Raises:
        UserError: the file is there and is no page of an earlier query.
        RunFolderError: it cannot be written.
    """
    check_page(file)
    cards: list[dict[str, Any]] = []
    total = labelled = right = 0
    labels: Labels | None = None
    for record in answers:
        total += 1
        if record.truth is not None:
            labels = labels or Labels(index)
        judged = labels is not None and labels.wanted(record) > 0
        near = [each for each in record.extra.get("neighbours", []) if each["id"] != id_of(record)]
        if judged and near:
            labelled, right = labelled + 1, right + (near[0].get("label") == record.truth)
        if len(cards) < MOST:
            cards.append(_card(record, index.manifest.folder, judged))
    jinja = Environment(loader=PackageLoader("tag_plugins_search", ""), autoescape=True)
    counts = {"total": total, "labelled": labelled, "right": right}
    manifest = index.manifest
    about = {"entries": len(index), "index": manifest.index["name"], "metric": manifest.metric, "reranked": reranked}
    recipe = manifest.embedding.get("recipe", {}).get("name", "")
    name = index.path.resolve().name
    write_text(
        Path(file), jinja.get_template("page.html").render(name=name, cards=cards, recipe=recipe, **counts, **about)
    )
    return sum("trouble" in item for card in cards for item in (card, *card["near"]))


def _card(record: Record, folder: str, judged: bool) -> dict[str, Any]:
    about = {"source": record.source, "frame": record.frame, "time": record.time}
    about |= {"box": box_of(record), "label": record.truth}
    near = []
    for neighbour in record.extra.get("neighbours", []):
        itself = neighbour["id"] == id_of(record)
        right = neighbour["label"] == record.truth if judged and not itself and "label" in neighbour else None
        judgement = {"distance": neighbour["distance"], "itself": itself, "right": right}
        near.append({**_seen(neighbour, folder, ""), **judgement})
    return {"error": record.error, "near": near, **(_seen(about, "", folder) if record.error is None else _told(about))}


def _seen(about: Mapping[str, Any], *folders: str) -> dict[str, Any]:
    """With its picture, or with what kept it from being drawn."""
    try:
        return {**_told(about), "picture": thumbnail(about, folders)}
    except UnreadableInput as error:
        return {**_told(about), "trouble": str(error)}


def _told(about: Mapping[str, Any]) -> dict[str, Any]:
    time, source = about.get("time"), str(about["source"])
    where = f"frame {about['frame']}" if about.get("frame") is not None else ""
    if time is not None:
        span = time if isinstance(time, list) else [time]
        where = ", ".join(filter(None, (where, f"{' to '.join(f'{second:.2f}' for second in span)} s")))
    label = about.get("label")
    short = "/".join(Path(source).parts[-1 if label is not None else -2 :])  # a label often is the folder's name
    return {"source": source, "name": short, "where": where, "label": label}
