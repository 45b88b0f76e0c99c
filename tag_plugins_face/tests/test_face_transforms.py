"""Transforms of pictures with faces: marks painted into the picture stay under the landmarks."""

from __future__ import annotations

import colorsys
import pickle
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from face_pictures import picture

from tag_plugins_face.faces import MIRRORED, Faces
from tag_plugins_face.transforms.mirror import Mirror
from tag_plugins_face.transforms.photometric import Photometric
from tag_plugins_face.transforms.resize import Resize
from tag_plugins_face.transforms.square_crop import SquareCrop
from tag_plugins_face.transforms.square_resize import METHODS, SquareResize

ALL: dict[str, Callable[[Any], dict[str, Any]]] = {
    "square-crop": SquareCrop(),
    "photometric": Photometric(),
    "mirror": Mirror(),
    "square-resize": SquareResize(96),
    "resize": Resize(80, 120),
}
STEP = 9  # pixels from mark to mark: one stays itself when scaled
COLOURS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [255, 0, 255]], dtype=torch.uint8)


def marked(height: int = 120, width: int = 160, corners: tuple[tuple[int, int], ...] = ((20, 30), (90, 60))) -> dict:
    """Black but for 5 coloured marks of 5x5 pixels for each face of 40x30, with landmarks in their centres."""
    image, rows = torch.zeros(3, height, width, dtype=torch.uint8), []
    for x, y in corners:
        points = [(x + 2.5 + STEP * (i % 3), y + 2.5 + STEP * (i // 3)) for i in range(5)]
        for (left, top), colour in zip(points, COLOURS, strict=True):
            image[:, int(top) - 2 : int(top) + 3, int(left) - 2 : int(left) + 3] = colour[:, None, None]
        rows.append([x - 2, y - 2, x + 38, y + 28, *np.ravel(points)])
    faces = Faces.of_rows(np.array(rows))
    return {"source": "a.png", "image": image, "scale": 1.0, "damage": None, "faces": faces, "label": 0}


def marks_under_landmarks(sample: dict[str, Any], order: list[int]) -> None:
    height, width = sample["image"].shape[-2:]
    for face in sample["faces"].landmarks:
        for (x, y), colour in zip(face.tolist(), COLOURS[order], strict=True):
            if 2 <= x < width - 2 and 2 <= y < height - 2:  # others are cut off
                found = sample["image"][:, int(y), int(x)].int()
                assert (found - colour.int()).abs().max() < 100, (x, y, found, colour)


def noisy(seed: int = 0) -> dict[str, Any]:
    image, boxes = picture(seed)
    rows = [[x, y, x + w, y + h, *[np.nan] * 10] for x, y, w, h in boxes]
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    return {"source": "a", "image": tensor, "scale": 1.0, "faces": Faces.of_rows(np.array(rows))}


@pytest.mark.parametrize("name", ALL)
def test_the_same_under_a_seed_a_pickle_too_and_the_input_stays(name: str) -> None:
    given, untouched = noisy(), noisy()
    results = []
    for transform in (ALL[name], pickle.loads(pickle.dumps(ALL[name]))):
        torch.manual_seed(3)
        results.append([transform(given) for _ in range(5)])
    for found, again in zip(*results, strict=True):
        assert found["image"].dtype == torch.uint8
        assert torch.equal(found["image"], again["image"])
        assert found["faces"] == again["faces"]
        assert found is not given
    assert torch.equal(given["image"], untouched["image"])
    assert given["faces"] == untouched["faces"]
    assert given["scale"] == 1.0


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (2000, 2), (3, 3)])
@pytest.mark.parametrize("name", ALL)
def test_tiny_and_very_long_pictures_and_no_faces_pass(name: str, size: tuple[int, int]) -> None:
    sample = {"image": torch.full((3, *size), 7, dtype=torch.uint8), "scale": 1.0, "faces": Faces.of_rows(np.zeros(0))}
    for _ in range(5):
        found = ALL[name](sample)
        assert found["image"].shape[0] == 3
        assert min(found["image"].shape) > 0
        assert len(found["faces"]) == 0


@pytest.mark.parametrize("name", ["photometric", "square-resize", "resize"])
def test_pictures_to_be_predicted_have_no_faces(name: str) -> None:
    sample = noisy()
    del sample["faces"]
    assert "faces" not in ALL[name](sample)


def test_mirroring_swaps_the_landmarks_over_their_marks_as_often_as_it_says() -> None:
    given = marked()
    found = Mirror(1)(given)
    assert torch.equal(found["image"], given["image"].flip(2))
    marks_under_landmarks(found, MIRRORED)
    assert found["faces"].boxes[0].tolist() == [160 - 58, 28, 160 - 18, 58]
    torch.manual_seed(0)
    share = np.mean([not torch.equal(Mirror(0.3)(given)["image"], given["image"]) for _ in range(1500)])
    assert share == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 1500) ** 0.5)


@pytest.mark.parametrize("factor", [0.5, 1, 1.7, 4])
def test_resizing_keeps_marks_boxes_and_scale_together(factor: float) -> None:
    found = Resize(round(120 * factor), 10_000)(marked())
    assert found["image"].shape == (3, round(120 * factor), round(160 * factor))
    assert found["scale"] == pytest.approx(factor)
    np.testing.assert_allclose(found["faces"].boxes / found["scale"], marked()["faces"].boxes, rtol=1e-6)
    marks_under_landmarks(found, [0, 1, 2, 3, 4])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((800, 1000), (1600, 2000)), ((1000, 800), (2000, 1600)), ((800, 1600), (1075, 2150)), ((5000, 10), (2150, 4))],
)
def test_the_longer_side_has_a_limit(size: tuple[int, int], expected: tuple[int, int]) -> None:
    sample = {"image": torch.zeros(3, *size, dtype=torch.uint8), "scale": 1.0}
    found = Resize()(sample)
    assert found["image"].shape[-2:] == expected
    assert found["scale"] == pytest.approx(expected[0] / size[0], rel=0.01)


def test_resizing_is_that_of_the_published_evaluation() -> None:
    image = noisy()["image"].permute(1, 2, 0).numpy()
    resize = 1600 / 160
    if np.round(resize * 200) > 2150:
        resize = 2150 / 200
    found = Resize()(noisy())["image"].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, cv2.resize(image, None, None, fx=resize, fy=resize))


@pytest.mark.parametrize("interpolation", [*METHODS, "random"])
@pytest.mark.parametrize("size", [(120, 160), (160, 120), (120, 120)])
def test_a_square_is_padded_on_the_right_or_below_and_resized(size: tuple[int, int], interpolation: str) -> None:
    transform = SquareResize(320, (1, 2, 3), interpolation)
    given = marked(*size, corners=((20, 30), (70, 70)))
    found = transform(given)
    assert found["image"].shape == (3, 320, 320)
    assert found["scale"] == 320 / max(size)
    marks_under_landmarks(found, [0, 1, 2, 3, 4])
    height, width = (round(side * 320 / max(size)) for side in size)
    for pad in (found["image"][:, height:], found["image"][:, :, width:]):
        assert (pad == torch.tensor([1, 2, 3], dtype=torch.uint8)[:, None, None]).all()
    assert (found["image"][:, :height, :width].amax((1, 2)) > 100).all()


def test_a_random_interpolation_is_each_of_the_five() -> None:
    given = noisy()
    fixed = [SquareResize(97, interpolation=name)(given)["image"] for name in METHODS]
    torch.manual_seed(0)
    drawn = [SquareResize(97)(given)["image"] for _ in range(60)]
    counts = [sum(torch.equal(image, each) for image in drawn) for each in fixed]
    assert sum(counts) == 60
    assert min(counts) > 3


def test_a_square_crop_holds_a_whole_face_and_those_with_their_centre_inside() -> None:
    given = marked()
    rows, columns = torch.meshgrid(torch.arange(120), torch.arange(160), indexing="ij")
    where = torch.stack([columns, rows, rows]).to(torch.uint8)  # every pixel tells its place
    boxes = given["faces"].boxes
    torch.manual_seed(0)
    sides, seen = set(), set()
    for _ in range(300):
        state = torch.get_rng_state()
        marks_under_landmarks(SquareCrop()(given), [0, 1, 2, 3, 4])
        torch.set_rng_state(state)
        found = SquareCrop()({**given, "image": where})
        (left, top, _), side = found["image"][:, 0, 0].tolist(), found["image"].shape[-1]
        assert torch.equal(found["image"], where[:, top : top + side, left : left + side])
        assert found["scale"] == 1.0
        corner = torch.tensor([left, top])
        assert ((boxes[:, :2] >= corner) & (boxes[:, 2:] <= corner + side)).all(1).any()
        centres = (boxes[:, :2] + boxes[:, 2:]) / 2 - corner
        inside = ((centres > 0) & (centres < side)).all(1)
        assert torch.equal(found["faces"].boxes, (boxes[inside] - corner.repeat(2)).clamp(0, side))
        sides.add(side)
        seen.add((top, left))
    assert sides == {54, 72, 96, 120}  # .45, .6, .8 and 1 of 120; 36 holds no face
    assert len(seen) > 100


def test_without_a_square_that_holds_a_face_the_picture_stays() -> None:
    given = marked(120, 160)
    whole = Faces.of_rows(np.array([[0, 0, 160, 120, *[np.nan] * 10]]))
    found = SquareCrop()({**given, "faces": whole})
    assert torch.equal(found["image"], given["image"])
    assert found["faces"] == whole
    assert torch.equal(SquareCrop(tries=1, scales=(0.3,))(given)["image"], given["image"])


def test_small_faces_are_left_out_where_that_is_asked_for() -> None:
    rows = [[10, 10, 50, 50, *[np.nan] * 10], [20, 60, 24, 64, *[np.nan] * 10]]
    given = {**marked(), "faces": Faces.of_rows(np.array(rows))}
    torch.manual_seed(0)
    found = [SquareCrop(scales=(1.0,))(given)["faces"] for _ in range(20)]
    assert {len(faces) for faces in found} == {2}
    found = [SquareCrop(scales=(1.0,), min_face=5 / 120)(given)["faces"] for _ in range(20)]
    assert [len(faces) for faces in found] == [1] * 20
    kept = SquareCrop(scales=(1.0,), min_face=41 / 120)(given)  # no face counts: no crop
    assert kept["image"].shape == given["image"].shape


LEVELS = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).repeat(3, 1, 1)


def changed(image: torch.Tensor, **options: Any) -> torch.Tensor:
    still = {"brightness": 0.0, "contrast": (1.0, 1.0), "saturation": (1.0, 1.0), "hue": 0, "p": 1.0}
    found: torch.Tensor = Photometric(**{**still, **options})({"image": image})["image"]
    return found


def test_nothing_to_change_changes_nothing() -> None:
    image = noisy()["image"]
    assert torch.equal(changed(image), image)
    assert torch.equal(Photometric(p=0)({"image": image})["image"], image)


def test_brightness_adds_one_number_evenly_up_to_its_bound() -> None:
    torch.manual_seed(0)
    shifts = []
    for _ in range(400):
        found = changed(LEVELS, brightness=32.0).int()
        shift = int(found[0, 8, 0] - LEVELS[0, 8, 0].int())
        assert torch.equal(found, (LEVELS.int() + shift).clamp(0, 255))
        shifts.append(shift)
    assert min(shifts) < -28 < 28 < max(shifts)
    assert max(map(abs, shifts)) <= 32
    assert np.std(shifts) == pytest.approx(64 / 12**0.5, rel=0.1)


def test_contrast_multiplies() -> None:
    torch.manual_seed(0)
    factors = []
    for _ in range(300):
        found = changed(LEVELS, contrast=(0.5, 1.5)).float()
        factor = float(found[0, 10, 0] / 160) if found[0, 10, 0] < 255 else float(found[0, 4, 0] / 64)
        assert (found - (LEVELS * factor).clamp(0, 255)).abs().max() <= 2.5  # the factor is read off a rounded level
        factors.append(factor)
    assert (min(factors), max(factors)) == (pytest.approx(0.5, abs=0.03), pytest.approx(1.5, abs=0.03))


@pytest.mark.parametrize("colour", [(200, 80, 40), (30, 160, 90), (60, 60, 200)])
def test_saturation_and_hue_are_those_of_a_plain_conversion(colour: tuple[int, int, int]) -> None:
    image = torch.tensor(colour, dtype=torch.uint8)[:, None, None].repeat(1, 2, 2)
    hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in colour))
    faded = changed(image, saturation=(0.5, 0.5))[:, 0, 0].numpy()
    expected = np.array(colorsys.hsv_to_rgb(hue, saturation / 2, value)) * 255
    np.testing.assert_allclose(faded, expected, atol=3)
    torch.manual_seed(0)
    turns = []
    for _ in range(300):
        turned = changed(image, hue=18)[:, 0, 0].numpy() / 255
        found, *rest = colorsys.rgb_to_hsv(*turned)
        turns.append(((found - hue) * 180 + 90) % 180 - 90)
        np.testing.assert_allclose(rest, [saturation, value], atol=0.03)
    assert max(map(abs, turns)) < 19.5
    assert min(turns) < -15 < 15 < max(turns)


def test_each_change_comes_half_of_the_time() -> None:
    image = torch.tensor([200, 80, 40], dtype=torch.uint8)[:, None, None].repeat(1, 2, 2)
    torch.manual_seed(0)
    for options in ({"brightness": 32.0}, {"contrast": (0.5, 0.6)}, {"saturation": (0.2, 0.5)}):
        share = np.mean([not torch.equal(changed(image, p=0.5, **options), image) for _ in range(600)])
        assert share == pytest.approx(0.5, abs=4 * (0.25 / 600) ** 0.5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Mirror(1.5),
        lambda: Resize(0),
        lambda: Resize(100, 50),
        lambda: SquareResize(0),
        lambda: SquareResize(10, (0, 0, 256)),
        lambda: SquareCrop(scales=()),
        lambda: SquareCrop(scales=(1.1,)),
        lambda: SquareCrop(tries=0),
        lambda: SquareCrop(min_face=1),
        lambda: Photometric(brightness=-1),
        lambda: Photometric(contrast=(2, 1)),
        lambda: Photometric(p=2),
    ],
)
def test_impossible_options_are_refused(build: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="got"):
        build()
