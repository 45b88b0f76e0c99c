"""Paddle's result file."""

import pickle

import pytest

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_video.sinks.paddle import PaddleResult
from tag_plugins_video.unpickle import load


def test_the_file_is_a_list_of_id_probabilities_and_class_numbers(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\nfish\n")
    sink = PaddleResult(tmp_path / "out", label_map=str(tmp_path / "names.txt"))
    sink.write(Record(source="a.mp4", labels=["fish", "cat"], scores=[0.75, 0.25]))
    sink.write(Record(source="broken.mp4", error="no such file"))
    sink.write(Record(source="b.mp4", labels=["cat", "dog"], scores=[0.125, 0.5]))
    assert not (tmp_path / "out").exists()
    sink.close()
    wanted = [("a.mp4", [0.75, 0.25], [2, 0]), ("b.mp4", [0.5, 0.125], [1, 0])]
    assert pickle.loads((tmp_path / "out").read_bytes()) == wanted
    assert load(tmp_path / "out") == wanted  # Tag reads its own pickles without running them


def test_numbers_may_be_the_names(tmp_path):
    sink = PaddleResult(tmp_path / "out", record_ids=True)
    sink.write(Record(source="yt8m/a.pkl#SjJ3", labels=["11", "3861"], scores=[0.9, 0.1]))
    sink.close()
    assert load(tmp_path / "out") == [("SjJ3", [0.9, 0.1], [11, 3861])]


def test_names_without_numbers_ask_for_a_label_map(tmp_path):
    (tmp_path / "names.txt").write_text("cat\n")
    record = Record(source="a.mp4", labels=["dog"], scores=[1.0])
    with pytest.raises(UserError, match="class 'dog' has no number; give video/paddle the label_map"):
        PaddleResult(tmp_path / "out").write(record)
    with pytest.raises(UserError, match="class 'dog' is not in the label_map"):
        PaddleResult(tmp_path / "out", label_map=str(tmp_path / "names.txt")).write(record)
    with pytest.raises(UserError, match="needs a score for each label"):
        PaddleResult(tmp_path / "out").write(Record(source="a.mp4"))
