"""The detector's parameters, its files, its detections, and the forms that they come in."""

import math

import numpy as np
import pytest
import torch
from face_pictures import FACE_DATA

from tag_core.config import build_component
from tag_core.engine.weights import Weights, fit, load_weights, read_file
from tag_core.errors import ConfigError, UserError
from tag_core.media.image import read_image
from tag_plugins_face.faces import Faces
from tag_plugins_face.tasks.detection import Detection

needs_data = pytest.mark.skipif(not FACE_DATA.is_dir(), reason="the shared data are not here")
WEIGHTS = FACE_DATA / "weights" / "retinaface_mobilenet0.25.pth"
PUBLISHED = {"backbone.": "body.", "pyramid.": ""}


def build(**options):
    return build_component("task", "face/detection", {"backbone": "face/mobilenet0.25", **options}).eval()


def published_keys(task):
    """A state dict in the public repository's layout, as a table of that layout gives it."""
    state = {}
    for key, value in task.state_dict().items():
        prefix, rest = next((p, key.removeprefix(p)) for p in PUBLISHED if key.startswith(p))
        if not rest.startswith("heads."):
            state[PUBLISHED[prefix] + rest.replace("3x3", "3X3").replace("5x5", "5X5").replace("7x7_2", "7X7_2")] = (
                value
            )
    for level, head in enumerate(task.pyramid.heads):
        for kind, value in (("weight", head.weight.data), ("bias", head.bias.data)):
            rows = value.reshape(-1, 16, *value.shape[1:])
            for name, part in (("ClassHead", rows[:, :2]), ("BboxHead", rows[:, 2:6]), ("LandmarkHead", rows[:, 6:])):
                state[f"{name}.{level}.conv1x1.{kind}"] = part.flatten(0, 1)
    return state


@pytest.fixture(scope="module")
def detector():
    if not WEIGHTS.is_file():
        pytest.skip("the shared data are not here")
    task = build()
    load_weights(read_file(WEIGHTS), task, strict=True)
    return task


@pytest.fixture
def drawn():
    """A detector whose fresh weights find something."""
    torch.manual_seed(0)
    return build(threshold=0.3)


def noise(height=97, width=130, number=2):
    picture = torch.randint(0, 256, (number, 3, height, width), dtype=torch.uint8)
    return {"image": picture, "source": [f"{n}.png" for n in range(number)], "damage": [None] * number}


def test_detectors_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        large = build(backbone="face/resnet50", width=256)
    assert sum(parameter.numel() for parameter in large.parameters()) == 27_293_600
    assert sum(parameter.numel() for parameter in build().parameters()) == 426_608


@needs_data
def test_the_published_file_has_the_layouts_keys_and_none_other():
    state = read_file(WEIGHTS).state
    expected = published_keys(build())
    assert {key: value.shape for key, value in state.items()} == {key: value.shape for key, value in expected.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "options",
    [{}, {"sizes": [[10, 16, 24], [32, 48], [64, 96]]}, {"backbone": "face/resnet50", "width": 8}],
    ids=["mobilenet", "more anchors", "resnet"],
)
def test_files_of_the_family_load_whole_with_and_without_the_prefix(prefix, options, tmp_path):
    one, other = build(**options), build(**options)
    torch.save({prefix + key: value for key, value in published_keys(one).items()}, tmp_path / "w.pth")
    report = load_weights(read_file(tmp_path / "w.pth"), other, strict=True)
    assert report == f"{len(one.state_dict())} tensors loaded (layout retinaface)"
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.parametrize("heads", [{}, {"ClassHead.0.conv1x1.weight": torch.zeros(3, 64, 1, 1)}])
def test_another_files_keys_are_not_taken_for_the_layout(heads):
    state = published_keys(build()) | heads
    state = state if heads else {key: value for key, value in state.items() if "Head" not in key}
    assert fit(Weights("w.pth", state), build())[1] != "retinaface"


@needs_data
@pytest.mark.parametrize("name", ["retinaface_curve_test.jpg", "skimage_astronaut.png", "ulfg_6.jpg", "ulfg_25.jpg"])
def test_detections_are_the_stored_ones_of_the_original(detector, name):
    image = torch.from_numpy(read_image(FACE_DATA / "images" / name)).permute(2, 0, 1)[None]
    with torch.no_grad():
        found = detector.predict({"image": image})
    with np.load(FACE_DATA / "reference" / "detections_retinaface_mobilenet0.25.npz") as stored:
        for key, tolerance in (("boxes", 0.01), ("scores", 1e-4), ("landmarks", 0.01)):
            expected = stored[f"{name.partition('.')[0]}/{key}"]
            np.testing.assert_allclose(found[key][0].numpy(), expected, rtol=0, atol=tolerance)
    assert found["count"].tolist() == [len(found["boxes"][0])]


def plain_faces(boxes, scores, limit, top_k, nms, keep):
    """Places of the faces, best first, by a loop over candidates."""
    order = sorted((n for n, score in enumerate(scores) if score > limit), key=lambda n: -scores[n])[:top_k]
    kept = []
    for n in order:
        for other in kept:
            a, b = boxes[n], boxes[other]
            wide, high = min(a[2], b[2]) - max(a[0], b[0]) + 1, min(a[3], b[3]) - max(a[1], b[1]) + 1
            shared = max(wide, 0) * max(high, 0)
            areas = [(box[2] - box[0] + 1) * (box[3] - box[1] + 1) for box in (a, b)]
            if shared / (sum(areas) - shared) > nms:
                break
        else:
            kept.append(n)
    return kept[:keep]


@pytest.mark.parametrize("limits", [(0.3, 5000, 0.4, 750), (0.5, 40, 0.1, 5), (0.999, 5000, 0.4, 750)])
def test_select_keeps_what_a_plain_loop_keeps(limits):
    threshold, top_k, nms, keep = limits
    task = build(threshold=threshold, top_k=top_k, nms=nms, keep=keep)
    torch.manual_seed(1)
    corner, size = torch.rand(2, 300, 2) * 60, torch.rand(2, 300, 2) * 20 + 2
    boxes, scores = torch.cat([corner, corner + size], 2), torch.rand(2, 300)
    landmarks = torch.rand(2, 300, 5, 2)
    found = task.select({"boxes": boxes, "scores": scores, "landmarks": landmarks}, {"scale": torch.tensor([1.0, 0.5])})
    counts = found["count"].tolist()
    for n, scale in enumerate((1.0, 0.5)):
        kept = plain_faces(boxes[n].double().tolist(), scores[n].tolist(), threshold, top_k, nms, keep)
        assert counts[n] == len(kept)
        torch.testing.assert_close(found["boxes"][n, : len(kept)], boxes[n, kept] / scale)
        torch.testing.assert_close(found["scores"][n, : len(kept)], scores[n, kept])
        torch.testing.assert_close(found["landmarks"][n, : len(kept)], landmarks[n, kept] / scale)
        assert not found["boxes"][n, len(kept) :].any()
    assert found["scores"].shape[1] == max(counts)


def test_predicting_is_selecting_from_the_dense_form(drawn):
    batch = noise() | {"scale": torch.tensor([2.0, 1.0])}
    with torch.no_grad():
        found, expected = drawn.predict(batch), drawn.select(drawn.dense(batch), batch)
    assert found["count"].min() > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)


def test_folding_the_batch_norms_changes_no_detection():
    torch.manual_seed(0)
    for task in (build(), build(backbone="face/resnet50", width=8)):
        batch = noise(40, 40)
        with torch.no_grad():
            task.train().offsets(batch["image"])  # its batch norms know some data
            expected = task.eval().dense(batch)
            task.fuse()
            found = task.dense(batch)
        assert not [each for each in task.modules() if isinstance(each, torch.nn.BatchNorm2d)]
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-2 if name != "scores" else 1e-5)


def test_a_picture_without_a_face_has_a_record_with_empty_lists():
    task, batch = build(threshold=0.999), noise()
    with torch.no_grad():
        records = list(task.records(task.predict(batch), batch))
    assert [record.source for record in records] == ["0.png", "1.png"]
    assert [(record.boxes, record.scores, record.keypoints, record.truth) for record in records] == [
        ([], [], [], None)
    ] * 2


def test_records_tell_boxes_scores_points_and_the_frame(drawn):
    batch = noise() | {"frame": torch.tensor([4, 8]), "time": torch.tensor([0.5, 1.0])}
    batch["damage"] = [None, "cut off"]
    with torch.no_grad():
        outputs = drawn.predict(batch)
    first, second = drawn.records(outputs, batch)
    assert (first.frame, first.time, first.damage) == (4, 0.5, None)
    assert (second.frame, second.time, second.damage) == (8, 1.0, "cut off")
    for n, record in enumerate((first, second)):
        count = int(outputs["count"][n])
        assert record.boxes == outputs["boxes"][n, :count].tolist()
        assert record.scores == sorted(record.scores, reverse=True)
        assert np.array(record.keypoints).shape == (count, 5, 2)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (33, 31)])
def test_pictures_of_any_size_are_read(drawn, size):
    batch = noise(*size, number=1)
    with torch.no_grad():
        found = drawn.predict(batch)
    assert found["boxes"].isfinite().all()


def test_the_loss_is_the_weighted_sum_of_its_parts():
    torch.manual_seed(0)
    task = build(box_weight=3.0, class_weight=0.5, landmark_weight=0.25).train()
    faces = Faces(torch.tensor([[10.0, 12, 40, 50]]), torch.full((1, 5, 2), 20.0))
    unmarked = Faces(faces.boxes, faces.landmarks * math.nan)
    told = task({**noise(), "faces": [faces, unmarked]})
    assert set(told) == {"loss", "class_loss", "box_loss", "landmark_loss"}
    total = 3 * told["box_loss"] + 0.5 * told["class_loss"] + 0.25 * told["landmark_loss"]
    torch.testing.assert_close(told["loss"], total)
    assert min(value.item() for value in told.values()) > 0
    assert task({**noise(), "faces": [unmarked, unmarked]})["landmark_loss"].item() == 0


def test_mean_and_order_of_the_channels_are_taken_care_of():
    task, seen = build(mean=[10, 20, 30]), []
    task.backbone.maps = lambda pictures: seen.append(pictures) or [torch.zeros(1, c, 1, 1) for c in (64, 128, 256)]
    with torch.no_grad():
        task.dense({"image": torch.tensor([11, 22, 33], dtype=torch.uint8).view(1, 3, 1, 1)})
    assert seen[0].flatten().tolist() == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": [[16]]},
        {"sizes": [[16], [], [32]]},
        {"width": 6},
        {"threshold": 1.5},
        {"top_k": 0},
        {"variances": [0, 1]},
    ],
)
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build(**options)


def test_a_backbone_without_three_maps_is_refused():
    with pytest.raises(ValueError, match="backbone must give three maps"):
        Detection(torch.nn.Identity())


def test_strides_other_than_the_backbones_are_told(drawn):
    with pytest.raises(UserError, match=r"task.strides=\[4, 8, 16\]"):
        build(strides=[4, 8, 16]).predict(noise())
