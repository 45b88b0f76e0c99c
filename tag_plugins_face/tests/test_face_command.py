"""``tag-run face wider``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from wider_loops import plain_ap, write_ground_truth

from tag_core.cli.main import main
from tag_core.records import Record
from tag_plugins_face.wider_text import WiderText

Run = Callable[..., tuple[int, str, str]]
FACES = [[0, 0, 9, 9], [20, 20, 9, 9], [50, 50, 19, 19]]
PICTURES = {"0--A/x": (FACES, {"easy": [3], "medium": [2, 3]}), "0--A/y": (FACES[:1], {"medium": [1]})}
FOUND = {"0--A/x": [[50, 50, 69, 69, 0.9], [80, 80, 90, 90, 0.7], [20, 20, 28, 29, 0.4]], "0--A/y": [[0, 0, 9, 8, 0.5]]}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; gives its exit code, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        code = main(["face", "wider", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def write(folder: Path, found: dict[str, list[list[float]]]) -> Path:
    sink = WiderText(folder)
    for name, rows in found.items():
        boxes, scores = [row[:4] for row in rows], [row[4] for row in rows]
        sink.write(Record(source=f"{name}.jpg", boxes=boxes, scores=scores))
    sink.close()
    return folder


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    return write_ground_truth(tmp_path / "truth", PICTURES)


def test_it_prints_a_score_for_each_subset(tmp_path: Path, truth: Path, run: Run) -> None:
    found = write(tmp_path / "found", FOUND)
    corners = {name: [[x, y, x + w, y + h] for x, y, w, h in faces] for name, (faces, _) in PICTURES.items()}
    medium = [(FOUND["0--A/x"], corners["0--A/x"], [False, True, True]), (FOUND["0--A/y"], corners["0--A/y"], [True])]
    code, told, _ = run(found, truth, "--json")
    assert (code, json.loads(told)) == (0, {"easy": 1.0, "medium": pytest.approx(plain_ap(medium)), "hard": None})
    assert 0 < json.loads(told)["medium"] < 1
    rows = [line.split() for line in run(found, truth)[1].splitlines()]
    assert [rows[0], rows[1][0], rows[2]] == [["easy", "1.0000"], "medium", ["hard", "nan"]]


def test_pictures_that_are_not_in_the_ground_truth_are_told_and_left_out(tmp_path: Path, truth: Path, run: Run) -> None:
    plain = run(write(tmp_path / "found", FOUND), truth)
    more = run(write(tmp_path / "more", {"9--Z/q": [[0, 0, 5, 5, 0.99]], **FOUND}), truth)
    assert more == (0, plain[1], "not in the ground truth, left out: 1, the first is 9--Z/q.txt\n")


def test_a_missing_file_a_broken_one_and_wrong_folders_exit_with_2(tmp_path: Path, truth: Path, run: Run) -> None:
    part = write(tmp_path / "found", {"0--A/x": FOUND["0--A/x"]})
    wrong = {
        "1 of the 2 pictures of the ground truth have no predictions: 0--A/y;": (part, truth),
        "no wider_face_val.mat": (part, part),
        "there is no <event>/<picture>.txt in it": (truth, truth),
    }
    for problem, folders in wrong.items():
        code, shown, told = run(*folders)
        assert (code, shown) == (2, "")
        assert problem in told
    (part / "0--A" / "y.txt").write_text("y\n2\n1 2 3 4 5\n")
    assert "y.txt, line 2: the number of faces is '2', and 1 lines follow" in run(part, truth)[2]


def test_it_does_not_import_torch(tmp_path: Path, truth: Path) -> None:
    found = write(tmp_path / "found", FOUND)
    code = "import sys; from tag_core.cli.main import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, "face", "wider", str(found), str(truth)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
