"""The augmentation of the Taobao Live solution."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torchvision.transforms.v2.functional as F
from torch import Tensor

from tag_plugins_reid.transforms.affine import Affine
from tag_plugins_reid.transforms.flip import Flip, check_probability
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

Change = Callable[[Tensor], Tensor]
GRAY, HOLE = 114, 0.63


class TaobaoAugment:
    """What the 7th place of the Tianchi Taobao Live challenge does to resized crops, in its order.

    The strengths are those of its ``metric_sub/src_train/augmentation.py`` and, where that names none, the defaults of
    albumentations 0.4. What an affine change brings in from outside and what is cut out become gray (114).

    Args:
        flip: how often to mirror.
        clarity: how often to equalise locally (CLAHE, 2 of 3) or to sharpen (1 of 3).
        light: how often to change brightness and contrast, each by up to 20 %.
        noise: how often to add Gaussian noise (1 of 5), sensor noise (2 of 5) or JPEG artefacts of quality 70 to 100.
        rgb: how often to shift each channel by up to 20.
        hsv: how often to shift hue by up to 16 degrees, saturation by up to 12 and value by up to 8.
        gray: how often to take the colour away.
        affine: how often to rotate and shear by up to 8 degrees, shift by up to 6.25 % and scale by up to 10 %.
        cutout: how often to blank a rectangle of up to 63 % of height and width.
    """

    def __init__(
        self,
        flip: float = 0.5,
        clarity: float = 0.35,
        light: float = 0.7,
        noise: float = 0.6,
        rgb: float = 0.5,
        hsv: float = 0.5,
        gray: float = 0.3,
        affine: float = 0.7,
        cutout: float = 0.7,
    ) -> None:
        chances = {"flip": flip, "clarity": clarity, "light": light, "noise": noise, "rgb": rgb, "hsv": hsv}
        chances |= {"gray": gray, "affine": affine, "cutout": cutout}
        self.chances = {name: check_probability(name, p) for name, p in chances.items()}
        move = Affine(8, 0.0625, 0.1, 8, GRAY)
        changes: list[Change] = [Flip(1), _clarity, _light, _noise, _rgb, _hsv, _gray, move, _cutout]
        self.changes = dict(zip(chances, changes, strict=True))

    def __call__(self, image: Tensor) -> Tensor:
        for name, change in self.changes.items():
            if torch.rand(()) < self.chances[name]:
                image = change(image)
        return image


def _clarity(image: Tensor) -> Tensor:
    if torch.rand(()) < 2 / 3:
        return clahe(image, _between(1, 2))
    return sharpen(image, _between(0.2, 0.5), _between(0.5, 1))


def _light(image: Tensor) -> Tensor:
    return brightness_contrast(image, _between(-0.2, 0.2), _between(-0.2, 0.2))


def _noise(image: Tensor) -> Tensor:
    chosen = torch.rand(())
    if chosen < 0.2:
        return gauss_noise(image, _between(10, 50))
    if chosen < 0.6:
        return iso_noise(image, _between(0.01, 0.05), _between(0.1, 0.5))
    return jpeg(image, int(torch.randint(70, 101, ())))


def _rgb(image: Tensor) -> Tensor:
    return rgb_shift(image, [_between(-20, 20) for _ in range(3)])


def _hsv(image: Tensor) -> Tensor:
    hue, saturation, value = (int(torch.randint(-limit, limit + 1, ())) for limit in (8, 12, 8))
    return hsv_shift(image, hue, saturation, value)


def _gray(image: Tensor) -> Tensor:
    grayed: Tensor = F.rgb_to_grayscale(image, 3)
    return grayed


def _cutout(image: Tensor) -> Tensor:
    height, width = (int(torch.randint(int(side * HOLE) + 1, ())) for side in image.shape[-2:])
    top, left = (int(torch.randint(side + 1, ())) for side in (image.shape[-2] - height, image.shape[-1] - width))
    image = image.clone()
    image[..., top : top + height, left : left + width] = GRAY
    return image


def _between(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))
