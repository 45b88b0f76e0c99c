"""``tag-run search``: indexes of embeddings, and their answers."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tag_core.cli.run import is_override
from tag_core.cli.tables import json_option, values
from tag_core.errors import TagError, UserError
from tag_core.recipe import CliText

if TYPE_CHECKING:
    from tag_core.records import Record
    from tag_plugins_search.store import IndexFolder

C = TypeVar("C", bound=Callable[..., Any])
LABELS = "True labels: 'folder' (the name of the folder that a source lies in), or a file of sources and labels."
index_argument = click.argument("index", type=click.Path(file_okay=False))
embeddings_option = click.option(
    "--embeddings",
    "records",
    multiple=True,
    required=True,
    metavar="RECORDS",
    help="predictions.jsonl, or the folder of 'tag-run predict RECIPE output=embedding --out FOLDER'; several times.",
)
labels_option = click.option("--labels", default="", metavar="folder|FILE", help=LABELS)


def refining_options(command: C) -> C:
    """--expand, --alpha and --rerank."""
    for option in (
        click.option("--rerank", type=click.IntRange(0), default=0, help="k-reciprocal re-ranking of so many answers."),
        click.option("--alpha", type=float, default=3.0, show_default=True, help="Power of the cosine in --expand."),
        click.option("--expand", type=click.IntRange(0), default=0, help="Query expansion by so many answers."),
    ):
        command = option(command)
    return command


@click.group()
def search() -> None:
    """Find the nearest neighbours of pictures and videos, by embeddings.

    tag-run predict RECIPE weights=FILE output=embedding --out EMBEDDINGS INPUT...

    tag-run search build --embeddings EMBEDDINGS INDEX

    tag-run search query INDEX PICTURE
    """


@search.command()
@embeddings_option
@click.option("--index", "name", default="auto", metavar="NAME", help="Such as search/hnsw; 'tag-run list index'.")
@click.option("--metric", type=click.Choice(["cosine", "euclidean"]), default="cosine", show_default=True)
@labels_option
@click.option("--replace", is_flag=True, help="In place of the index that is there.")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]... OUT")
@json_option
def build(
    records: tuple[str, ...],
    name: str,
    metric: Any,
    labels: str,
    replace: bool,
    options: tuple[str, ...],
    as_json: bool,
) -> int:
    """Make an index of RECORDS in the folder OUT.

    KEY=VALUE are options of the index, such as m=48. Without --index it is search/flat up to 100,000 entries, and
    search/hnsw above.
    """
    *overrides, out = options or [""]
    if not out or not all(map(is_override, overrides)):
        raise click.UsageError("name one OUT, a folder, after options as KEY=VALUE")
    if overrides and name == "auto":
        raise click.UsageError(f"{overrides[0]} is an option of an index: name it with --index")
    from tag_plugins_search.embeddings import labelled, read_embeddings
    from tag_plugins_search.store import IndexFolder

    table = {"name": name, **{key: CliText(text) for key, _, text in (each.partition("=") for each in overrides)}}
    model, stream = read_embeddings(records)
    if not model:
        click.echo("no model.json beside the records: only records can be asked for, and are not checked", err=True)
    counted = _progress(labelled(stream, labels))
    made = IndexFolder.build(out, counted, table, metric=metric, embedding=model, replace=replace)
    return _told(made, as_json)


@search.command()
@embeddings_option
@labels_option
@index_argument
@json_option
def add(records: tuple[str, ...], labels: str, index: str, as_json: bool) -> int:
    """Add RECORDS to INDEX, all or none."""
    from tag_plugins_search.embeddings import labelled, read_embeddings

    opened = _open(index)
    model, stream = read_embeddings(records)
    opened.check_fingerprint(model.get("fingerprint"))
    added = opened.add(_progress(labelled(stream, labels)))
    return _told(opened, as_json, added=added)


@search.command()
@index_argument
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def remove(index: str, names: tuple[str, ...], as_json: bool) -> int:
    """Remove entries from INDEX.

    NAME is an id, or a source with all its entries. One that is not there is an error, and nothing is removed.
    """
    opened = _open(index)
    return _told(opened, as_json, removed=opened.remove(names))


@search.command()
@index_argument
@json_option
def compact(index: str, as_json: bool) -> int:
    """Give back the room that removed entries of INDEX take."""
    opened = _open(index)
    return _told(opened, as_json, given_back=opened.compact())


@search.command()
@index_argument
@json_option
def show(index: str, as_json: bool) -> int:
    """What INDEX is: entries, index with its options, metric, model."""
    return _told(_open(index), as_json)


@search.command()
@index_argument
def verify(index: str) -> int:
    """Compare INDEX with its checksums.

    All of it is read; the exit code is 1 where something is wrong.
    """
    problems = _open(index).verify()
    if problems:
        raise TagError(f"{index}: {'; '.join(problems)}; build it again")
    click.echo(f"{index}: sound", err=True)
    return 0


@search.command()
@index_argument
@click.argument("arguments", nargs=-1, required=True, metavar="[KEY=VALUE]... QUERY...")
@click.option("--k", type=click.IntRange(1), default=10, show_default=True, help="Answers for each query.")
@refining_options
@labels_option
@click.option("--html", type=click.Path(dir_okay=False), help="Also write a page with pictures.")
def query(
    index: str,
    arguments: tuple[str, ...],
    k: int,
    expand: int,
    alpha: float,
    rerank: int,
    labels: str,
    html: str | None,
) -> int:
    """Find the nearest entries of INDEX.

    Each QUERY gives a JSON record a line, with extra.neighbours. It is a picture, a video, a folder or a pattern of
    these, which the index's own model embeds (KEY=VALUE are options of its recipe, such as weights=FILE where these
    have moved); or RECORDS with embeddings. A file that is named twice is answered once.
    """
    overrides = [argument for argument in arguments if is_override(argument)]
    queries = [argument for argument in arguments if not is_override(argument)]
    if not queries:
        raise click.UsageError("name at least one QUERY: a picture, a video or RECORDS")
    from tag_plugins_search.answers import search as ask
    from tag_plugins_search.embeddings import labelled
    from tag_plugins_search.entries import id_of

    if html:
        from tag_plugins_search.page import check_page

        check_page(html)
    opened, data, unreadable = _open(index), sys.stdout, dict[str, str]()
    closed: BrokenPipeError | None = None

    def printed(answers: Iterator[Record]) -> Iterator[Record]:
        nonlocal closed
        for record in answers:
            if record.error is not None:
                unreadable[id_of(record)] = record.error
            try:
                if not closed:
                    click.echo(record.to_json().encode(), file=data)
            except BrokenPipeError as error:
                if not html:
                    raise
                closed = error  # the page is still wanted
            yield record

    with contextlib.redirect_stdout(sys.stderr):  # what a model prints is not data
        stream = labelled(_queries(opened, queries, overrides), labels)
        answers = printed(ask(opened, stream, k, expand=expand, alpha=alpha, rerank=rerank))
        if html:
            from tag_plugins_search.page import write_page

            missing = write_page(html, answers, opened, reranked=rerank > 0)
            click.echo(html, err=True)
            if missing:
                click.echo(f"{missing} pictures could not be shown; the page says why", err=True)
        for _ in answers:
            pass
    if closed:
        raise closed
    return _unanswered(unreadable)


@search.command("eval")
@index_argument
@click.argument("records", nargs=-1, required=True, metavar="RECORDS...")
@click.option("--k", type=click.IntRange(0), default=0, help="Depth of mAP; by default all entries up to 10,000.")
@refining_options
@labels_option
@json_option
def evaluate(
    index: str, records: tuple[str, ...], k: int, expand: int, alpha: float, rerank: int, labels: str, as_json: bool
) -> int:
    """Score INDEX by labels and exact search.

    The queries are in RECORDS. One that is in the index itself is not its own answer.
    """
    from tag_plugins_search.embeddings import labelled
    from tag_plugins_search.evaluation import evaluate as score

    opened, unreadable = _open(index), dict[str, str]()
    stream = _progress(labelled(_queries(opened, records, ()), labels))
    scores = score(opened, stream, k, expand=expand, alpha=alpha, rerank=rerank, unreadable=unreadable)
    if not scores["queries"]:
        why = f"none of the queries could be answered: {_first(unreadable)}" if unreadable else "there is no query"
        raise UserError(f"{records[0]}: nothing to score: {why}")
    known = {name: value for name, value in scores.items() if value is not None}
    click.echo(json.dumps(scores) if as_json else values(known))
    if not scores["labelled"]:
        hint = "is the index built with labels?" if labels else "give labels with --labels"
        click.echo(f"no query has a label that another entry has; {hint}", err=True)
    return _unanswered(unreadable)


def _open(index: str) -> IndexFolder:
    from tag_plugins_search.store import IndexFolder

    return IndexFolder.open(index)


def _queries(index: IndexFolder, given: Iterable[str], overrides: Iterable[str]) -> Iterator[Record]:
    """Records, or what the index's own model makes of files."""
    from tag_plugins_search.embeddings import embed, is_records, read_embeddings

    given, overrides = list(given), list(overrides)
    kinds = {is_records(each) for each in given}
    if len(kinds) == 2:
        raise UserError("queries are either records or pictures and videos, not both at once")
    if kinds == {False}:
        return embed(index.manifest.embedding, given, overrides)
    model, records = read_embeddings(given)
    index.check_fingerprint(model.get("fingerprint"))
    return records


def _progress(records: Iterator[Record]) -> Iterator[Record]:
    """The records, counted on a terminal."""
    from tqdm import tqdm

    yield from tqdm(records, unit="record", disable=None, leave=False)


def _told(index: IndexFolder, as_json: bool, **done: int) -> int:
    """Print what the index now is; returns the exit code."""
    about = index.manifest
    component = {key: value for key, value in about.index.items() if key != "name"}
    table: dict[str, Any] = {
        **done,
        "entries": len(index),
        "dimension": about.dimension,
        "metric": about.metric,
        "index": about.index["name"],
        "options": component,
        "removed": about.removed,
        "recipe": about.embedding.get("recipe", {}).get("name"),
        "weights": about.embedding.get("recipe", {}).get("weights"),
        "fingerprint": about.embedding.get("fingerprint"),
    }
    if as_json:
        click.echo(json.dumps({**table, "unreadable": index.unreadable}))
    else:
        options = " ".join(f"{key}={value}" for key, value in component.items()) or None
        click.echo(values({k: v for k, v in {**table, "options": options}.items() if v is not None}))
    if index.unreadable:
        click.echo(f"left out, for it has no embedding: {_first(index.unreadable)}", err=True)
    return 3 if index.unreadable else 0


def _unanswered(queries: Mapping[str, str]) -> int:
    """Tell those that have no answer; returns the exit code."""
    if queries:
        count = "1 query" if len(queries) == 1 else f"{len(queries)} queries"
        click.echo(f"{count} could not be answered: {_first(queries)}", err=True)
    return 3 if queries else 0


def _first(unreadable: Mapping[str, str]) -> str:
    source, reason = next(iter(unreadable.items()))
    return f"{source}: {reason}" + (f", and {len(unreadable) - 1} more" if len(unreadable) > 1 else "")
