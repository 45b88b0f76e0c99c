"""Each transform against a plain version of what it is said to do, or against its distribution."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tag_plugins_reid.aspect import SIZES, TEMPLATES
from tag_plugins_reid.transforms.affine import Affine
from tag_plugins_reid.transforms.aspect_resize import AspectResize
from tag_plugins_reid.transforms.color_jitter import ColorJitter
from tag_plugins_reid.transforms.flip import Flip
from tag_plugins_reid.transforms.moments import Moments
from tag_plugins_reid.transforms.pad_crop import PadCrop
from tag_plugins_reid.transforms.random_erasing import IMAGENET_MEAN, RandomErasing
from tag_plugins_reid.transforms.resize import Resize
from tag_plugins_reid.transforms.taobao_augment import TaobaoAugment

MEAN, STD = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
ALL: dict[str, Callable[[Tensor], Tensor]] = {
    "resize": Resize((48, 24)),
    "short side": Resize(short_side=20),
    "aspect": AspectResize("S"),
    "pad-crop": PadCrop(),
    "flip": Flip(),
    "erasing": RandomErasing(1),
    "pixels": RandomErasing(1, fill="pixel"),
    "jitter": ColorJitter(),
    "affine": Affine(20, 0.1, 0.2, 5),
    "moments": Moments(),
    "taobao": TaobaoAugment(),
}


def picture(height: int = 64, width: int = 32, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", ALL)
def test_bytes_go_in_and_come_out_the_same_under_a_seed_and_the_input_stays(name: str) -> None:
    image = picture()
    before = image.clone()
    results = []
    for transform in (ALL[name], pickle.loads(pickle.dumps(ALL[name]))):
        torch.manual_seed(3)
        results.append([transform(image) for _ in range(5)])
    for found, again in zip(*results, strict=True):
        assert found.dtype == torch.uint8
        assert found.shape[0] == 3
        assert torch.equal(found, again)
    assert torch.equal(image, before)


@pytest.mark.parametrize("name", ["resize", "aspect", "pad-crop", "flip", "erasing", "affine", "jitter", "moments"])
def test_a_gray_picture_stays_gray(name: str) -> None:
    gray = picture()[:1].expand(3, -1, -1)
    transform = RandomErasing(1, fill=(7, 7, 7)) if name == "erasing" else ALL[name]
    for _ in range(10):
        found = transform(gray).int()
        assert (found - found[:1]).abs().max() <= 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 200), (300, 2)])
@pytest.mark.parametrize("name", ALL)
def test_very_small_and_very_long_pictures_pass(name: str, height: int, width: int) -> None:
    for _ in range(3):
        assert ALL[name](picture(height, width)).shape[0] == 3


@pytest.mark.parametrize(("height", "width"), [(100, 60), (30, 20)])
def test_resizing_is_that_of_pillow(height: int, width: int) -> None:
    image = picture(71, 43)
    found = Resize((height, width))(image)
    pillow = Image.fromarray(image.permute(1, 2, 0).numpy()).resize((width, height), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(pillow)).permute(2, 0, 1)
    assert found.shape == (3, height, width)
    assert (found.int() - expected.int()).abs().max() <= 1


def test_a_short_side_keeps_the_shape() -> None:
    assert Resize(short_side=32)(picture(64, 128)).shape == (3, 32, 64)
    assert Resize(short_side=32)(picture(128, 64)).shape == (3, 64, 32)


@pytest.mark.parametrize("scale", ["S", "SM", "M"])
def test_aspect_resize_takes_the_nearest_of_twelve_shapes(scale: str) -> None:
    for template, (width, height) in zip(TEMPLATES, SIZES[scale], strict=True):
        assert AspectResize(scale)(picture(1000, round(1000 * template))).shape == (3, height, width)
    assert AspectResize("SM")(picture(10, 2000)).shape == (3, 200, 400)
    assert AspectResize("SM")(picture(2000, 10)).shape == (3, 400, 100)


def test_flip_mirrors_as_often_as_it_says() -> None:
    image = picture(4, 4)
    torch.manual_seed(0)
    found = [Flip(0.3)(image) for _ in range(2000)]
    mirrored = [torch.equal(each, image.flip(2)) for each in found]
    assert all(same or torch.equal(each, image) for each, same in zip(found, mirrored, strict=True))
    assert np.mean(mirrored) == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


def test_pad_crop_shifts_evenly_by_up_to_the_padding() -> None:
    image = torch.zeros(3, 20, 30, dtype=torch.uint8)
    image[:, 8, 12] = 255
    torch.manual_seed(0)
    places = []
    for _ in range(3000):
        found = PadCrop(3)(image)
        assert found.shape == image.shape
        places.append(torch.nonzero(found[0])[0].tolist())
    shifts = np.array(places) - [8, 12]
    for axis in (0, 1):
        values, counts = np.unique(shifts[:, axis], return_counts=True)
        assert values.tolist() == [-3, -2, -1, 0, 1, 2, 3]
        assert counts == pytest.approx(3000 / 7, abs=5 * (3000 / 7) ** 0.5)
    assert set(PadCrop(3, fill=77)(torch.zeros(3, 2, 2, dtype=torch.uint8)).unique().tolist()) <= {0, 77}


def erased(image: Tensor, transform: RandomErasing) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) of what differs from ``image``."""
    places = torch.nonzero((transform(image) != image).any(0))
    if not len(places):
        return None
    (top, left), (bottom, right) = places.min(0).values.tolist(), places.max(0).values.tolist()
    assert len(places) == (bottom - top + 1) * (right - left + 1), "not a rectangle"
    return top, left, bottom - top + 1, right - left + 1


def test_random_erasing_draws_area_and_aspect_as_published() -> None:
    """Against the published algorithm in numpy, with its own random numbers."""
    generator, height, width = np.random.default_rng(0), 128, 64

    def reference() -> tuple[float, float]:
        while True:
            area, aspect = generator.uniform(0.02, 0.4) * height * width, generator.uniform(0.3, 3.33)
            h, w = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
            if w < width and h < height:
                return h * w / (height * width), h / w

    image, transform = torch.zeros(3, height, width, dtype=torch.uint8), RandomErasing(1, fill=(1, 1, 1))
    torch.manual_seed(0)
    found = [erased(image, transform) for _ in range(1000)]
    mine = np.array([(h * w / (height * width), h / w) for _, _, h, w in found])  # type: ignore[misc]
    theirs = np.array([reference() for _ in range(1000)])
    for column in (0, 1):
        ours, others = np.sort(mine[:, column]), np.sort(theirs[:, column])
        gap = np.abs(np.searchsorted(others, ours, "right") - np.arange(1, 1001)).max() / 1000
        assert gap < 1.95 * (2 / 1000) ** 0.5, "two samples of one distribution differ less, but for 1 in 1,000"
    tops, lefts = np.array([(t / (height - h), x / (width - w)) for t, x, h, w in found]).T  # type: ignore[misc]
    assert [tops.mean(), lefts.mean()] == pytest.approx([0.5, 0.5], abs=0.05)
    assert [tops.min(), lefts.min(), tops.max(), lefts.max()] == [0, 0, 1, 1]


def test_random_erasing_happens_as_often_as_it_says() -> None:
    image, transform = torch.zeros(3, 30, 20, dtype=torch.uint8), RandomErasing(0.6, (0.02, 0.1))
    torch.manual_seed(0)
    share = np.mean([transform(image) is not image for _ in range(2000)])
    assert share == pytest.approx(0.6, abs=4 * (0.24 / 2000) ** 0.5)


def test_the_mean_colour_is_0_after_normalisation_and_theirs_can_be_had() -> None:
    def patch(transform: RandomErasing) -> Tensor:
        found = transform(torch.zeros(3, 40, 40, dtype=torch.uint8)) / 255
        return ((found - MEAN) / STD).flatten(1).max(1).values

    torch.manual_seed(0)
    assert patch(RandomErasing(1)).abs().max() < 0.01
    assert (patch(RandomErasing(1, fill=(152, 142, 127))) - MEAN.flatten()).abs().max() < 0.01
    torch.testing.assert_close(torch.tensor(IMAGENET_MEAN), (MEAN.flatten() * 255).round().int(), check_dtype=False)


def test_pixels_at_random_are_all_values_equally_often() -> None:
    torch.manual_seed(0)
    image = torch.full((3, 400, 400), 300 % 256, dtype=torch.uint8)
    painted = RandomErasing(1, (0.5, 0.5), (1, 1), fill="pixel")(image)
    top, left, height, width = erased(image, lambda _: painted)  # type: ignore[arg-type, misc]
    counts = painted[:, top : top + height, left : left + width].flatten().bincount(minlength=256)
    assert ((counts / counts.sum() * 256 - 1).abs() < 0.2).all()


def test_a_rectangle_that_never_fits_leaves_the_picture() -> None:
    image = picture(10, 10)
    assert torch.equal(RandomErasing(1, (1, 1), (1, 1))(image), image)


def test_color_jitter_changes_brightness_by_up_to_its_share() -> None:
    image = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    torch.manual_seed(0)
    values = np.array([int(ColorJitter(0.2, 0, 0, 0)(image)[0, 0, 0]) for _ in range(1000)])
    assert values.min() in (80, 81)
    assert values.max() in (118, 119, 120)
    assert values.mean() == pytest.approx(100, abs=2)
    assert torch.equal(ColorJitter(0, 0, 0, 0)(picture()), picture())


def test_affine_turns_about_the_centre() -> None:
    image = picture(33, 33)
    assert torch.equal(Affine(0)(image), image)
    torch.manual_seed(0)
    angles = []
    rows, columns = np.mgrid[:101, :101] - 50.0
    for _ in range(200):
        arm = torch.zeros(3, 101, 101, dtype=torch.uint8)
        arm[:, 48:53, 80:91] = 255  # right of the centre
        moved = Affine(30)(arm)[0].double().numpy()
        angles.append(np.degrees(np.arctan2((moved * rows).sum(), (moved * columns).sum())))
    assert [min(angles), max(angles)] == pytest.approx([-30, 30], abs=1)
    assert np.mean(angles) == pytest.approx(0, abs=3)
    assert (Affine(30, fill=9)(torch.zeros(3, 50, 50, dtype=torch.uint8)) == 9).any()


def test_affine_shifts_and_scales_by_up_to_its_shares() -> None:
    torch.manual_seed(0)
    square = torch.zeros(3, 100, 200, dtype=torch.uint8)
    square[:, 40:60, 80:120] = 255
    rows, columns = np.mgrid[:100, :200] + 0.5
    centres, areas = [], []
    for _ in range(200):
        moved = Affine(0, 0.1)(square)[0].double().numpy()
        centres.append([(moved * rows).sum() / moved.sum() - 50, (moved * columns).sum() / moved.sum() - 100])
        areas.append(Affine(0, 0, 0.2)(square)[0].double().sum().item() / 255 / 800)
    assert np.max(centres, 0) == pytest.approx([10, 20], abs=1)
    assert np.min(centres, 0) == pytest.approx([-10, -20], abs=1)
    assert [min(areas), max(areas)] == pytest.approx([0.64, 1.44], abs=0.05)


@pytest.mark.parametrize(("ink", "paper", "side"), [("dark", 230, (120, 80)), ("light", 20, (60, 90))])
@pytest.mark.parametrize(("left", "top", "size"), [(3, 5, 10), (40, 20, 30), (10, 10, 40)])
def test_moments_bring_ink_to_the_middle_and_to_one_spread(
    ink: Literal["dark", "light"], paper: int, side: tuple[int, int], left: int, top: int, size: int
) -> None:
    drawing = torch.full((3, *side), paper, dtype=torch.uint8)
    drawing[:, top : top + size, left : left + size // 2] = 250 - paper  # twice as high as wide
    found = Moments(0.4, ink)(drawing)
    assert found.shape == drawing.shape
    weight = (found[0].double() - paper).abs().numpy()
    rows, columns = (np.arange(length) - (length - 1) / 2 for length in side)
    down, right = weight.sum(1) / weight.sum(), weight.sum(0) / weight.sum()
    assert [down @ rows, right @ columns] == pytest.approx([0, 0], abs=0.3)
    variances = [down @ rows**2, right @ columns**2]
    assert np.sqrt(np.mean(variances)) == pytest.approx(0.4 * min(side) / 2, rel=0.04)
    assert variances[0] / variances[1] == pytest.approx(4, rel=0.1)
    assert set(found[:, 0, 0].tolist()) == {paper}


def test_moments_leave_a_page_without_ink_and_bring_a_dot_to_the_middle() -> None:
    page = torch.full((3, 41, 41), 250, dtype=torch.uint8)
    assert torch.equal(Moments()(page), page)
    page[:, 3, 7] = 0
    weight = 250 - Moments()(page)[0].double().numpy()
    assert (weight.sum(1) @ np.arange(41) / weight.sum(), weight.sum(0) @ np.arange(41) / weight.sum()) == (20, 20)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: Resize(), "one of them"),
        (lambda: Resize((3, 3), 3), "one of them"),
        (lambda: Resize((0, 3)), "at least 1"),
        (lambda: PadCrop(0), "padding"),
        (lambda: Moments(0), "spread"),
        (lambda: Flip(1.5), r"p must lie in \[0, 1\]"),
        (lambda: RandomErasing(area=(0.4, 0.02)), "in order"),
        (lambda: RandomErasing(fill=(0, 0, 256)), "from 0 to 255"),
        (lambda: Affine(-1), "0 or more"),
        (lambda: TaobaoAugment(gray=2), "gray must lie"),
    ],
)
def test_options_that_make_no_sense_are_refused(build: Callable[[], object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        build()
