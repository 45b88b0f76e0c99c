"""The metric ``face/wider_ap``."""

from __future__ import annotations

import pickle
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from wider_loops import SHARED, plain_ap, write_ground_truth

from tag_core.errors import UserError
from tag_plugins_face.faces import Faces
from tag_plugins_face.metrics.wider_ap import WiderAP
from tag_plugins_face.wider import picture_name

Rows = list[list[float]]


def outputs_of(pictures: list[Rows]) -> dict[str, Any]:
    """Detections x1 y1 x2 y2 score, padded with zeros."""
    longest = max(map(len, pictures))
    rows = [torch.tensor(found).reshape(-1, 5) for found in pictures]
    padded = torch.stack([torch.cat([found, torch.zeros(longest - len(found), 5)]) for found in rows])
    return {"boxes": padded[..., :4], "scores": padded[..., 4], "count": torch.tensor([len(p) for p in pictures])}


def faces_of(boxes: Rows) -> Faces:
    return Faces(torch.tensor(boxes).reshape(-1, 4).float(), torch.full((len(boxes), 5, 2), float("nan")))


def random_data(seed: int, pictures: int = 9) -> list[tuple[Rows, Rows]]:
    """Detections and faces, in quarters of a pixel, which float32 holds."""
    generator, data = np.random.default_rng(seed), []
    for _ in range(pictures):
        faces = generator.integers(0, 240, (generator.integers(0, 5), 4)) / 4
        faces[:, 2:] = faces[:, :2] + generator.integers(40, 90, (len(faces), 2)) / 4
        near = faces.repeat(2, 0) + generator.integers(-12, 13, (2 * len(faces), 4)) / 4
        false = np.array([[1.0, 1, 9, 9]])
        scores = generator.integers(1, 64, (2 * len(faces) + 1, 1)) / 64
        data.append((np.hstack([np.vstack([near, false]), scores]).tolist(), faces.tolist()))
    return data


def ap_of(data: list[tuple[Rows, Rows]], scale: float = 1.0, batch: int = 2) -> WiderAP:
    metric = WiderAP()
    for start in range(0, len(data), batch):
        part = data[start : start + batch]
        faces = [faces_of((np.reshape(boxes, (-1, 4)) * scale).tolist()) for _, boxes in part]
        known = {"source": [f"e/{start}-{n}.jpg" for n in range(len(part))], "scale": torch.full((len(part),), scale)}
        metric.update(outputs_of([rows for rows, _ in part]), {"faces": faces, **known})
    return metric


@pytest.mark.parametrize("seed", range(5))
def test_without_ground_truth_all_labelled_faces_count(seed: int) -> None:
    data = random_data(seed)
    plain = plain_ap([(rows, faces, [True] * len(faces)) for rows, faces in data])
    assert ap_of(data).compute() == {"ap": pytest.approx(plain, abs=1e-12)}
    assert 0.05 < plain < 0.95


def test_faces_are_in_pixels_of_the_scaled_picture() -> None:
    data = random_data(1)
    assert ap_of(data, scale=0.5).compute() == ap_of(data).compute()
    assert ap_of(data, scale=2.0).compute() == ap_of(data).compute()


def test_parts_of_the_data_merge_into_the_whole() -> None:
    data = random_data(2)
    first, second = ap_of(data[:4]), ap_of(data[4:], batch=3)
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.compute() == first.compute() == ap_of(data).compute()


def test_without_faces_it_is_nan_and_without_detections_0() -> None:
    assert isnan(WiderAP().compute()["ap"])
    assert isnan(ap_of([([[0, 0, 9, 9, 0.5]], [])]).compute()["ap"])
    assert ap_of([([], [[0, 0, 9, 9]])]).compute() == {"ap": 0.0}


def test_data_and_tasks_of_another_kind_and_nan_are_refused() -> None:
    given = outputs_of([[[0, 0, 9, 9, 0.5]]])
    with pytest.raises(UserError, match="needs scored boxes, and labelled faces"):
        WiderAP().update(given, {"source": ["e/a.jpg"]})
    with pytest.raises(UserError, match="needs scored boxes"):
        WiderAP().update({"scores": torch.rand(1, 4)}, {"source": ["e/a.jpg"], "faces": [faces_of([])]})
    for place in (0, 4):
        row = [0.0, 0, 9, 9, 0.5]
        row[place] = float("nan")
        with pytest.raises(UserError, match=r"e/a\.jpg is infinite or nan"):
            WiderAP().update(outputs_of([[row]]), {"source": ["e/a.jpg"], "faces": [faces_of([])]})


@pytest.fixture
def truth(tmp_path: Path) -> str:
    subsets = {"easy": [1], "medium": [1, 2]}
    boxes = [[0, 0, 9, 9], [20, 20, 9, 9]]
    return str(write_ground_truth(tmp_path, {"A/x": (boxes, subsets), "A/y": (boxes, subsets), "B/x": (boxes, {})}))


def update(metric: WiderAP, **pictures: Rows) -> None:
    """Of ``A__x``, the picture photos/A/x.jpg."""
    sources = [f"photos/{name.replace('__', '/')}.jpg" for name in pictures]
    metric.update(outputs_of([*pictures.values()]), {"source": sources})


def test_with_ground_truth_pictures_are_known_by_folder_and_name_and_missing_ones_are_told(truth: str) -> None:
    metric, other = WiderAP(truth), WiderAP(truth)
    update(metric, A__x=[[0, 0, 9, 9, 0.9], [20, 20, 29, 29, 0.8]], C__x=[[0, 0, 5, 5, 1.0]])
    found = metric.compute()
    assert found == {
        "easy": 0.5,
        "medium": 0.5,
        "hard": pytest.approx(float("nan"), nan_ok=True),
        "missing_pictures": 2,
    }
    update(other, A__y=[[20, 20, 29, 29, 0.7]], B__x=[])
    metric.merge(other)
    assert [*metric.compute().values()] == [0.5, 0.75, pytest.approx(float("nan"), nan_ok=True), 0]
    metric.reset()
    assert metric.compute()["missing_pictures"] == 3


def test_pictures_of_other_data_and_the_same_picture_twice_are_refused(truth: str) -> None:
    metric, other = WiderAP(truth), WiderAP(truth)
    update(metric, C__q=[])
    with pytest.raises(UserError, match=r"none of the 1 pictures .* names like C/q, it has A/x"):
        metric.compute()
    update(metric, A__x=[])
    with pytest.raises(UserError, match="two pictures have the name A/x"):
        update(metric, A__x=[])
    update(other, A__x=[])
    with pytest.raises(UserError, match="two pictures have the name A/x"):
        metric.merge(other)
    with pytest.raises(UserError, match=r"no wider_face_val\.mat"):
        WiderAP(f"{truth}/none")


@pytest.mark.skipif(not (SHARED / "face").is_dir(), reason="the shared data are not here")
def test_real_predictions_merged_from_two_processes_score_as_the_official_evaluation_scored_them() -> None:
    stored = np.load(SHARED / "face" / "reference" / "wider_eval_good.npz")
    rows = torch.from_numpy(stored["xywh_score"])
    rows[:, 2:4] += rows[:, :2]
    metrics = [WiderAP(str(SHARED / "face" / "widerface_gt")) for _ in range(2)]
    for place, (name, found) in enumerate(zip(stored["names"], rows.split(stored["counts"].tolist()), strict=True)):
        source = f"WIDER_val/images/{name}.jpg"
        assert picture_name(source) == name
        outputs = {"boxes": found[None, :, :4], "scores": found[None, :, 4], "count": torch.tensor([len(found)])}
        metrics[place % 2].update(outputs, {"source": [source]})
    metrics[0].merge(metrics[1])
    scores = metrics[0].compute()
    np.testing.assert_allclose([*scores.values()], [*stored["ap_easy_medium_hard"], 0], rtol=0, atol=1e-12)
