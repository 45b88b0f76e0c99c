"""The evaluation of WIDER FACE."""

from __future__ import annotations

from math import isnan
from pathlib import Path

import numpy as np
import pytest
from wider_loops import SHARED, plain_ap, walk, write_ground_truth

from tag_core.errors import UserError
from tag_plugins_face.wider import SUBSETS, Tally, Truth, evaluate, iou, match, picture_name, read_ground_truth

# x y w h score, and x y w h; published with the reference implementation's answers.
DETECTIONS = [
    (0, 0, 10, 10, 1),
    (50, 50, 10, 10, 0.75),
    (1, 1, 10, 10, 0.5),
    (100, 100, 20, 20, 0.25),
    (200, 200, 5, 5, 0.1),
]
FACES = [(0, 0, 10, 10), (50, 50, 10, 12), (100, 100, 20, 20)]
COUNTED = [True, False, True]


def corners(rows: object) -> np.ndarray:
    found = np.array(rows, float)
    found[:, 2:4] += found[:, :2]
    return found


def one_picture(rows: np.ndarray, truth: Truth) -> list[float]:
    tally = Tally(truth.counted.shape[1])
    tally.add(rows[:, :4], rows[:, 4], truth)
    return tally.average_precision()


def random_pictures(seed: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Detections near their faces, twice on some, and elsewhere; coarse scores, so that many are equal."""
    generator = np.random.default_rng(seed)
    pictures = []
    for _ in range(12):
        faces = generator.integers(0, 60, (generator.integers(0, 7), 4)).astype(float)
        faces[:, 2:] = faces[:, :2] + generator.integers(5, 30, (len(faces), 2))
        near = faces[generator.integers(0, len(faces), 9)] if len(faces) else np.zeros((0, 4))
        near = near + generator.normal(0, 3, near.shape)
        far = generator.uniform(0, 60, (generator.integers(0, 4), 4))
        boxes = np.concatenate([near, np.concatenate([far[:, :2], far[:, :2] + far[:, 2:]], 1)])
        scores = generator.integers(1, 40, len(boxes)) / generator.choice([40, 41])
        pictures.append((np.column_stack([boxes, scores]), faces, generator.random((len(faces), 3)) < 0.6))
    return pictures


def test_the_published_example_gives_what_the_reference_gives() -> None:
    truth = Truth(corners(FACES), np.array([COUNTED]).T)
    rows = corners(DETECTIONS)
    assert match(rows[:, :4], rows[:, 4], truth.boxes)[0].tolist() == [0, 1, 0, 2, -1]
    assert match(rows[:, :4], rows[:, 4], truth.boxes)[1].tolist() == [True, True, False, True, False]
    assert one_picture(rows, truth) == pytest.approx([0.833333], abs=1e-6)
    tally = Tally(1)
    tally.add(rows[:, :4], rows[:, 4], truth)
    assert tally.right[0].cumsum().tolist() == [1, 1, 1, 2, 2]
    assert np.where(tally.proposed[0][:, 0], 1, -1).tolist() == [1, -1, 1, 1, 1]


def test_the_loops_that_the_tests_compare_with_give_the_published_example_too() -> None:
    rows, faces = corners(DETECTIONS).tolist(), corners(FACES).tolist()
    assert walk(rows, faces, COUNTED) == ([1, 1, 1, 2, 2], [1, -1, 1, 1, 1])
    assert plain_ap([(rows, faces, COUNTED)]) == pytest.approx(0.833333, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_it_equals_plain_loops_on_random_pictures(seed: int) -> None:
    pictures = random_pictures(seed)
    tally = Tally(3)
    for rows, faces, counted in pictures:
        tally.add(rows[:, :4], rows[:, 4], Truth(faces, counted))
    for subset, found in enumerate(tally.average_precision()):
        plain = [(rows.tolist(), faces.tolist(), counted[:, subset].tolist()) for rows, faces, counted in pictures]
        assert found == pytest.approx(plain_ap(plain), abs=1e-12)
        assert 0.01 < found < 0.99


def test_the_order_of_a_pictures_detections_does_not_matter() -> None:
    rows, faces, counted = random_pictures(3)[0]
    rows[:, 4] = np.linspace(0.1, 0.9, len(rows))
    turned = rows[np.random.default_rng(0).permutation(len(rows))]
    assert one_picture(turned, Truth(faces, counted)) == one_picture(rows, Truth(faces, counted))


def test_iou_counts_the_pixels_at_both_ends() -> None:
    boxes = np.array([[0.0, 0, 9, 9], [20, 20, 19, 19], [5, 0, 14, 9], [9, 9, 0, 0]])
    assert iou(boxes, boxes[:1])[:, 0].tolist() == [1.0, 0.0, pytest.approx(50 / 150), 0.0]


def test_without_faces_there_is_no_precision_and_without_detections_it_is_0() -> None:
    row = np.array([[0.0, 0, 9, 9, 0.5]])
    face = Truth(row[:, :4], np.array([[True, False]]))
    assert one_picture(np.zeros((0, 5)), face) == [0.0, pytest.approx(float("nan"), nan_ok=True)]
    found, none = one_picture(row, face)
    assert found == 1
    assert isnan(none)


def test_equal_scores_are_all_let_in_at_once() -> None:
    rows = np.array([[0.0, 0, 9, 9, 0.3], [30, 30, 39, 39, 0.3]])
    assert one_picture(rows, Truth(rows[:1, :4], np.ones((1, 1), bool))) == [0.5]


def test_detections_in_a_picture_without_faces_are_false() -> None:
    row = np.array([[0.0, 0, 9, 9, 0.5]])
    tally = Tally(1)
    tally.add(row[:, :4], row[:, 4], Truth(row[:, :4], np.ones((1, 1), bool)))
    tally.add(row[:, :4], row[:, 4], Truth(np.zeros((0, 4)), np.ones((0, 1), bool)))
    assert tally.average_precision() == [0.5]


def test_ground_truth_is_read_by_event_and_picture(tmp_path: Path) -> None:
    faces = {
        "0--A/x.1": (FACES, {"easy": [1], "hard": [1, 3]}),
        "0--A/y": ([], {}),
        "1--B/z": (FACES[:1], {"medium": [1]}),
    }
    truth = read_ground_truth(write_ground_truth(tmp_path, faces))
    assert list(truth) == list(faces)
    assert truth["0--A/x.1"].boxes.tolist() == [[0, 0, 10, 10], [50, 50, 60, 62], [100, 100, 120, 120]]
    assert truth["0--A/x.1"].counted.tolist() == [[True, False, True], [False] * 3, [False, False, True]]
    assert truth["0--A/y"].boxes.shape == (0, 4)
    assert truth["1--B/z"].counted.tolist() == [[False, True, False]]


def test_a_wrong_or_damaged_ground_truth_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no wider_face_val\.mat, wider_easy_val\.mat, .* eval_tools"):
        read_ground_truth(tmp_path)
    folder = write_ground_truth(tmp_path, {"A/x": (FACES, {})})
    easy = (folder / "wider_easy_val.mat").read_bytes()
    for damaged in (easy[:100], b"no", b"", easy[:-20]):
        (folder / "wider_easy_val.mat").write_bytes(damaged)
        with pytest.raises(UserError, match="wider_easy_val.mat: not a .mat file"):
            read_ground_truth(folder)
    (folder / "wider_easy_val.mat").write_bytes((folder / "wider_face_val.mat").read_bytes())
    with pytest.raises(UserError, match="has no gt_list"):
        read_ground_truth(folder)
    other = write_ground_truth(tmp_path / "other", {"A/x": (FACES, {"easy": [4]})})
    with pytest.raises(UserError, match="do not fit together"):
        read_ground_truth(other)


def test_pictures_without_predictions_are_named(tmp_path: Path) -> None:
    truth = read_ground_truth(write_ground_truth(tmp_path, {f"A/{n}": (FACES, {"easy": [1]}) for n in "uvwxyz"}))
    with pytest.raises(UserError, match=r"5 of the 6 pictures .*: A/v, A/w, A/x, \.\.\.; .* like A/u"):
        evaluate({"A/u": np.zeros((0, 5))}, truth)


def test_a_picture_is_known_by_its_folder_and_stem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    event = tmp_path / "0--Parade"
    event.mkdir()
    monkeypatch.chdir(event)
    for source in ("val/0--Parade/a.b.jpg", "/0--Parade/a.b.png", "a.b.jpg", "../0--Parade/a.b.jpg", "./a.b.jpg"):
        assert picture_name(source) == "0--Parade/a.b"
    assert picture_name("/a.jpg") == "a"


@pytest.mark.skipif(not (SHARED / "face").is_dir(), reason="the shared data are not here")
def test_real_predictions_score_as_the_official_evaluation_scored_them() -> None:
    stored = np.load(SHARED / "face" / "reference" / "wider_eval_good.npz")
    rows = np.split(corners(stored["xywh_score"]), stored["counts"].cumsum()[:-1])
    scores = evaluate(
        dict(zip(stored["names"], rows, strict=True)), read_ground_truth(SHARED / "face" / "widerface_gt")
    )
    assert [*scores] == [*SUBSETS]
    np.testing.assert_allclose([*scores.values()], stored["ap_easy_medium_hard"], rtol=0, atol=1e-12)
    assert [round(score, 4) for score in scores.values()] == [0.8931, 0.8973, 0.8372]
