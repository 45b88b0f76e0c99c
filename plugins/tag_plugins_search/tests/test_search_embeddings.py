"""Records are read with what made them, and are labelled as the user says."""

from __future__ import annotations

from pathlib import Path

import pytest
from search_data import write_records

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search.embeddings import embed, is_records, labelled, read_embeddings

A, B, C = (Record(source=f"{name}.jpg", embedding=[1.0, float(i)]) for i, name in enumerate("abc"))


def test_folders_and_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first = write_records(tmp_path / "first", [A, B], "one")
    second = write_records(tmp_path / "second", [C], "one")
    model, records = read_embeddings([first, second / "predictions.jsonl"])
    assert model["fingerprint"] == "one"
    assert list(records) == [A, B, C]
    assert is_records(first)
    assert is_records(second / "predictions.jsonl")
    assert not is_records(tmp_path)


def test_embeddings_of_different_models_are_refused(tmp_path: Path) -> None:
    one, two, unknown = (write_records(tmp_path / str(name), [A], name) for name in ("one", "two", None))
    for other in (two, unknown):
        with pytest.raises(UserError, match="embeddings of different models"):
            read_embeddings([one, other])
    assert read_embeddings([unknown, unknown])[0] == {}


@pytest.mark.parametrize("text", ["{", "[]", '{"recipe": {}}', "3"])
def test_a_damaged_model_file_is_told(tmp_path: Path, text: str) -> None:
    folder = write_records(tmp_path, [A])
    (folder / "model.json").write_text(text)
    with pytest.raises(UserError, match=r"model.json: cannot be read"):
        read_embeddings([folder])


def test_a_folder_without_records_is_told(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(UserError, match="no records there"):
            read_embeddings([path])
    (tmp_path / "bad.jsonl").write_text('{"source": "a"}\n{"sour')
    with pytest.raises(UserError, match=r"bad.jsonl, line 2"):
        list(read_embeddings([tmp_path / "bad.jsonl"])[1])


@pytest.mark.parametrize("data", [b"{\n}\n", b"\xff\xd8\xff\n", b"[1]\n", b'{"source": "a'])
def test_a_file_of_something_else_is_told_before_it_is_read(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    with pytest.raises(UserError, match="no file of records: its first line is no JSON object; give predictions.jsonl"):
        read_embeddings([tmp_path / "file"])


def test_the_folder_of_a_training_is_no_source_of_embeddings(tmp_path: Path) -> None:
    training = write_records(tmp_path / "run", [A])
    (training / "checkpoints").mkdir()
    for path in (training, training / "predictions.jsonl"):
        with pytest.raises(UserError, match=rf"a training, .*; predict first: tag-run predict {training} INPUT"):
            read_embeddings([path])
    write_records(training, [A], "one")  # a prediction that was put into it
    assert list(read_embeddings([training])[1]) == [A]


def test_labels_of_nothing_that_is_there_are_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "list.txt").write_text("shlef/a.jpg left\nshlef/b.jpg right\n")
    records = [Record(source=f"{tmp_path}/shelf/{name}.jpg") for name in "abc"]
    told = r"none of its 2 labels is for one of the 3 records: it has .*/shlef/a.jpg, and they have .*/shelf/c.jpg; ids"
    with pytest.raises(UserError, match=told):
        list(labelled(iter(records), str(tmp_path / "list.txt")))
    assert list(labelled(iter([]), str(tmp_path / "list.txt"))) == []
    assert caplog.messages == []
    (tmp_path / "list.txt").write_text("shelf/a.jpg left\n")
    list(labelled(iter(records), str(tmp_path / "list.txt")))
    assert caplog.messages == [f"{tmp_path}/list.txt: has no label for 2 of the 3 records"]


def test_labels_come_from_folders_files_or_the_records(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("x/a.jpg left\nb.jpg right\n")
    (tmp_path / "table.csv").write_text("path,label,price\nx/a.jpg,left,3\nb.jpg,right,4\n")
    sources = [tmp_path / "x" / "a.jpg", tmp_path / "b.jpg", tmp_path / "c.jpg"]

    def truths(labels: str) -> list[str | None]:
        return [r.truth for r in labelled((Record(source=str(s), truth="own") for s in sources), labels)]

    assert truths("") == ["own"] * 3
    assert truths("folder") == ["x", tmp_path.name, tmp_path.name]
    for name in ("list.txt", "table.csv"):
        assert truths(str(tmp_path / name)) == ["left", "right", "own"]
    with pytest.raises(UserError, match="cannot be read"):
        truths("missing.txt")


def test_a_source_without_a_folder_has_no_label_by_folder() -> None:
    sources = {"a.jpg": None, "./a.jpg": None, "/a.jpg": None, "x/a.jpg": "x", "/x/y/../a.jpg": "x"}
    given = (Record(source=source, truth="own") for source in [*sources, "../a.jpg"])
    found = {record.source: record.truth for record in labelled(given, "folder")}
    assert found == {**sources, "../a.jpg": Path.cwd().parent.name}


def test_an_index_without_a_model_cannot_embed() -> None:
    with pytest.raises(UserError, match="does not know its model"):
        list(embed({}, ["a.jpg"]))
