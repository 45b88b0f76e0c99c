import csv
import gc
import json
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

from tag_core.builtin import sinks
from tag_core.builtin.sinks import CSV, JSONLines, Parquet, Pickle
from tag_core.errors import RunFolderError, UserError
from tag_core.records import Record, read_records

RECORDS = [
    Record(source="a, b.mp4", labels=["walk", 'say "hi"'], scores=[0.75, 0.25], truth="walk", damage="cut short"),
    Record(source="lost.mp4", error="no such file"),
    Record(source="ümlaut.mp4", frame=3, time=0.5, labels=["cat", "dog"], scores=[0.9, 0.8],
           boxes=[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.5]], track=[1, 2]),
    Record(source="none.jpg", frame=0, labels=[], scores=[], boxes=[]),
    Record(source="deep.mp4", time=[1.0, 2.5], embedding=[0.5, -0.25], keypoints=[[[1.0, 2.0]]],
           masks=[{"size": [2, 2], "counts": "04"}], extra={"crop": "centre"}),
]  # fmt: skip


def filled(sink):
    for record in RECORDS:
        sink.write(record)
    sink.close()
    return sink


def test_json_lines_read_back_as_the_same_records(tmp_path):
    filled(JSONLines(tmp_path / "out.jsonl"))
    assert list(read_records(tmp_path / "out.jsonl")) == RECORDS


def test_csv_has_a_row_per_box_or_record(tmp_path):
    filled(CSV(tmp_path / "out.csv"))
    with open(tmp_path / "out.csv", encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert " ".join(header) == "source frame time end label score x1 y1 x2 y2 track truth damage error"
    assert rows == [
        ["a, b.mp4", "", "", "", "walk", "0.75", "", "", "", "", "", "walk", "cut short", ""],
        ["lost.mp4", *[""] * 12, "no such file"],
        ["ümlaut.mp4", "3", "0.5", "", "cat", "0.9", "0.0", "1.0", "2.0", "3.0", "1", "", "", ""],
        ["ümlaut.mp4", "3", "0.5", "", "dog", "0.8", "4.0", "5.0", "6.0", "7.5", "2", "", "", ""],
        ["none.jpg", "0", *[""] * 12],
        ["deep.mp4", "", "1.0", "2.5", *[""] * 10],
    ]


def test_parquet_reads_back_as_the_same_records(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    filled(Parquet(tmp_path / "out.parquet"))
    for row, record in zip(parquet.read_table(tmp_path / "out.parquet").to_pylist(), RECORDS, strict=True):
        data = {key: value for key, value in row.items() if value is not None}
        data |= {key: json.loads(data[key]) for key in ("masks", "extra") if key in data}
        if isinstance(record.time, float):
            (data["time"],) = data["time"]
        assert Record.from_dict(data) == record


def test_parquet_is_written_in_row_groups(tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(sinks, "ROW_GROUP", 2)
    filled(Parquet(tmp_path / "out.parquet"))
    metadata = parquet.ParquetFile(tmp_path / "out.parquet").metadata
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [2, 2, 1]


def test_pickle_is_a_list_of_plain_dicts(tmp_path):
    filled(Pickle(tmp_path / "out.pkl"))
    assert pickle.loads((tmp_path / "out.pkl").read_bytes()) == [record.to_dict() for record in RECORDS]


ALL = [JSONLines, CSV, Parquet, Pickle]


@pytest.mark.parametrize("sink", ALL)
def test_the_file_appears_when_the_sink_is_closed_and_closing_twice_is_harmless(tmp_path, sink):
    path = tmp_path / "out"
    path.write_text("old")
    opened = sink(path)
    opened.write(RECORDS[0])
    assert path.read_text() == "old"
    opened.close()
    written = path.read_bytes()
    opened.close()
    assert path.read_bytes() == written != b"old"
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("sink", ALL)
def test_a_sink_that_is_never_closed_leaves_nothing(tmp_path, sink):
    opened = sink(tmp_path / "out")
    opened.write(RECORDS[0])
    del opened
    gc.collect()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("sink", ALL)
def test_no_records_make_a_valid_empty_file(tmp_path, sink):
    sink(tmp_path / "out").close()
    assert (tmp_path / "out").exists()


@pytest.mark.parametrize("sink", ALL)
def test_a_source_whose_name_is_not_utf8_is_written(tmp_path, sink):
    opened = sink(tmp_path / "out")
    name = os.fsdecode(b"clip\xff.mp4")
    opened.write(Record(source=name))
    opened.close()
    if sink is JSONLines:
        assert [record.source for record in read_records(tmp_path / "out")] == [name]
    else:
        assert b"clip" in (tmp_path / "out").read_bytes()


@pytest.mark.parametrize("sink", ["JSONLines", "CSV", "Parquet", "Pickle"])
def test_a_disk_that_fills_up_is_told_and_the_old_file_stays(tmp_path, sink):
    (tmp_path / "out").write_text("old")
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(
        textwrap.dedent(f"""
        import pathlib, resource, sys
        from tag_core.builtin.sinks import {sink}
        from tag_core.errors import RunFolderError
        from tag_core.records import Record
        sink = {sink}(pathlib.Path(sys.argv[1], "out"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            for i in range(3000):
                sink.write(Record(source=str(i) * 20, labels=["x"], scores=[i / 3000]))
            sink.close()
        except RunFolderError as error:
            print(error)
            sink.close()
        """)
    )
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)
    assert "out: File too large; check" in done.stdout, done.stderr
    assert done.stderr == ""
    assert (tmp_path / "out").read_text() == "old"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_that_is_not_there_is_told_when_the_sink_is_made(tmp_path):
    with pytest.raises(RunFolderError, match="check that its folder is there"):
        JSONLines(tmp_path / "none" / "out.jsonl")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install 'tag-core\[parquet\]'"):
        Parquet(tmp_path / "out.parquet")
