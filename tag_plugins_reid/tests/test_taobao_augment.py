"""The Taobao Live augmentation: each change against a plain version, and how often each happens."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tag_plugins_reid.transforms import taobao_augment
from tag_plugins_reid.transforms.photometric import (
    brightness_contrast,
    clahe,
    gauss_noise,
    hsv_shift,
    iso_noise,
    jpeg,
    rgb_shift,
    sharpen,
)
from tag_plugins_reid.transforms.taobao_augment import TaobaoAugment

NEVER = dict.fromkeys(["flip", "clarity", "light", "noise", "rgb", "hsv", "gray", "affine", "cutout"], 0.0)


def picture(height: int = 40, width: int = 30) -> Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_nothing_happens_where_every_chance_is_0() -> None:
    assert torch.equal(TaobaoAugment(**NEVER)(picture()), picture())


@pytest.mark.parametrize("name", NEVER)
def test_each_change_happens_as_often_as_published(name: str) -> None:
    published = {"flip": 0.5, "clarity": 0.35, "light": 0.7, "noise": 0.6, "rgb": 0.5, "hsv": 0.5, "gray": 0.3}
    published |= {"affine": 0.7, "cutout": 0.7}
    augment = TaobaoAugment()
    happened = dict.fromkeys(NEVER, 0)

    def counted(which: str, image: Tensor) -> Tensor:
        happened[which] += 1
        return image

    augment.changes = {which: lambda image, which=which: counted(which, image) for which in NEVER}  # type: ignore[misc]
    torch.manual_seed(0)
    for _ in range(1000):
        augment(picture(2, 2))
    p = published[name]
    assert happened[name] / 1000 == pytest.approx(p, abs=4 * (p * (1 - p) / 1000) ** 0.5)


def test_brightness_and_contrast_are_a_line() -> None:
    image = picture()
    expected = np.clip(np.round(image.numpy() * 0.9 + 0.1 * 255), 0, 255)
    assert np.abs(brightness_contrast(image, 0.1, -0.1).numpy() - expected).max() <= 1
    assert brightness_contrast(image, 1, 0).min() == 255


def test_a_shift_of_rgb_is_a_sum_that_does_not_wrap() -> None:
    image = picture()
    expected = np.clip(image.numpy().astype(int) + np.array([20, -20, 5])[:, None, None], 0, 255)
    np.testing.assert_array_equal(rgb_shift(image, [20, -20, 5]).numpy(), expected)


def test_a_shift_of_hsv_is_that_of_the_standard_library() -> None:
    image = picture(12, 12)
    found = hsv_shift(image, 8, 12, -8)
    for (r, g, b), new in zip(image.flatten(1).T.tolist(), found.flatten(1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(r / 255, g / 255, b / 255)
        s, v = np.clip([s + 12 / 255, v - 8 / 255], 0, 1)
        expected = 255 * np.array(colorsys.hsv_to_rgb((h + 8 / 180) % 1, s, v))
        assert np.abs(expected - new).max() <= 6  # OpenCV's hue has steps of two degrees
    np.testing.assert_allclose(hsv_shift(image, 0, 0, 0).int(), image.int(), atol=5)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    assert hsv_shift(red, -8, 0, 0)[2] > 0, "hue is a circle"


def test_sharpening_is_a_convolution() -> None:
    image = picture()
    found = sharpen(image, 0.4, 0.7).numpy()
    kernel = np.full((3, 3), -0.4)
    kernel[1, 1] = 0.6 + 0.4 * 8.7
    windows = np.lib.stride_tricks.sliding_window_view(image.numpy().astype(float), (3, 3), axis=(1, 2))
    expected = np.clip((windows * kernel).sum((3, 4)), 0, 255)
    assert np.abs(found[:, 1:-1, 1:-1] - expected).max() <= 1
    flat = torch.full((3, 9, 9), 100, dtype=torch.uint8)
    assert (sharpen(flat, 0.5, 1.0) == 100).all()


def test_clahe_spreads_the_lightness_and_keeps_gray_gray() -> None:
    ramp = torch.linspace(100, 140, 64).to(torch.uint8).expand(3, 64, 64)
    found = clahe(ramp, 2.0).int()
    assert found[0].max() - found[0].min() > 1.3 * 40
    assert (found - found[:1]).abs().max() <= 1
    assert (found[0].float().mean(0).diff() >= -3).all(), "the order of grays is kept, but for tiles' borders"


def test_gauss_noise_has_the_variance_asked_for() -> None:
    torch.manual_seed(0)
    gray = torch.full((3, 100, 100), 128, dtype=torch.uint8)
    noise = gauss_noise(gray, 50).double() - 128
    assert noise.mean().abs() < 0.2
    assert noise.var() == pytest.approx(50 + 1 / 12, rel=0.05)
    assert noise[0].flatten().dot(noise[1].flatten()).abs() / 10_000 < 3, "channels by themselves"


def test_sensor_noise_grows_with_contrast_and_intensity_and_lightens() -> None:
    torch.manual_seed(0)
    flat = torch.full((3, 50, 50), 100, dtype=torch.uint8)
    assert (iso_noise(flat, 0.05, 0.5).int() - 100).abs().max() <= 1, "no contrast, no noise; gray has no hue"
    image = torch.cat([torch.full((3, 80, 50), 30), torch.full((3, 80, 50), 200)], 2).to(torch.uint8)
    faint, strong = ((iso_noise(image, 0.0, level).double() - image).mean((0, 1)) for level in (0.1, 0.5))
    expected = np.std([30, 200]) * 0.5 * (1 - 30 / 255)  # the Poisson mean, by the room that is left above
    assert strong[:50].mean() == pytest.approx(expected, rel=0.05)
    assert faint[:50].mean() == pytest.approx(expected / 5, rel=0.05)


def test_the_choice_of_noise_and_of_clarity_is_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[str] = []
    for name in ("gauss_noise", "iso_noise", "clahe", "sharpen"):
        record = lambda image, *_, name=name: (chosen.append(name), image)[1]  # noqa: E731
        monkeypatch.setattr(taobao_augment, name, record)
    torch.manual_seed(0)
    image = picture(8, 8)
    for _ in range(1000):
        taobao_augment._clarity(image)
        taobao_augment._noise(image)
    shares = [chosen.count(name) / 1000 for name in ("clahe", "sharpen", "gauss_noise", "iso_noise")]
    assert shares == pytest.approx([2 / 3, 1 / 3, 0.2, 0.4], abs=0.06)


def test_gray_is_the_usual_luma() -> None:
    found = TaobaoAugment(**NEVER | {"gray": 1})(picture())
    expected = np.tensordot([0.2989, 0.587, 0.114], picture().numpy(), 1)
    assert np.abs(found.numpy() - expected).max() <= 1


def test_a_cutout_is_one_gray_rectangle_of_up_to_63_percent() -> None:
    torch.manual_seed(0)
    white = torch.full((3, 100, 200), 255, dtype=torch.uint8)
    sizes = []
    for _ in range(200):
        hole = (TaobaoAugment(**NEVER | {"cutout": 1})(white) == 114).all(0)
        down, across = int(hole.any(1).sum()), int(hole.any(0).sum())
        assert hole.sum() == down * across
        sizes.append((down, across))
    assert np.max(sizes, 0) == pytest.approx([63, 126], abs=2)
    assert np.mean(sizes, 0) == pytest.approx([31.5, 63], rel=0.1)


def test_what_comes_in_from_outside_is_gray() -> None:
    torch.manual_seed(0)
    white, augment = torch.full((3, 60, 60), 255, dtype=torch.uint8), TaobaoAugment(**NEVER | {"affine": 1})
    darkest = [int(augment(white).min()) for _ in range(20)]
    assert min(darkest) == 114


def test_jpeg_is_that_of_pillow() -> None:
    """Both use libjpeg; a smooth picture is hardly changed, and colours keep their places."""
    smooth = torch.stack([torch.linspace(0, 255, 64), torch.full((64,), 90.0), torch.linspace(255, 0, 64)])
    image = smooth[:, None].expand(3, 64, 64).to(torch.uint8)
    for quality in (70, 100):
        file = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        expected = np.array(Image.open(file)).transpose(2, 0, 1)
        assert np.abs(jpeg(image, quality).numpy().astype(int) - expected).max() <= 8
