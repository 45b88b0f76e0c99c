"""Changes of light, colour and noise to a picture, uint8 [3, H, W]; nothing in here is random but the noise.

Where torchvision has none, they are OpenCV's, or follow albumentations 0.4, which the Taobao Live solution used.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from torch import Tensor

cv2.setNumThreads(1)  # pictures are prepared in parallel already


def clahe(image: Tensor, clip: float) -> Tensor:
    """Contrast-limited adaptive histogram equalisation of the lightness (Zuiderveld, 1994), in 8 x 8 tiles."""
    lab = cv2.cvtColor(to_array(image), cv2.COLOR_RGB2LAB)
    lab[..., 0] = cv2.createCLAHE(clipLimit=clip, tileGridSize=(8, 8)).apply(np.ascontiguousarray(lab[..., 0]))
    return to_tensor(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))


def sharpen(image: Tensor, alpha: float, lightness: float) -> Tensor:
    """The picture and 8 + lightness times it less its 8 neighbours, mixed by alpha (as imgaug does)."""
    kernel = np.full((3, 3), -alpha)
    kernel[1, 1] = 1 - alpha + alpha * (8 + lightness)
    return to_tensor(cv2.filter2D(to_array(image), -1, kernel))


def brightness_contrast(image: Tensor, brightness: float, contrast: float) -> Tensor:
    """Times 1 + contrast, plus 255 times brightness."""
    return to_bytes(image.float() * (1 + contrast) + 255 * brightness)


def gauss_noise(image: Tensor, variance: float) -> Tensor:
    """Normal noise on every byte."""
    return to_bytes(image + torch.randn(image.shape) * variance**0.5)


def iso_noise(image: Tensor, color_shift: float, intensity: float) -> Tensor:
    """A camera sensor's noise at high ISO: normal noise of the hue, Poisson noise of the lightness."""
    hls = cv2.cvtColor(to_array(image).astype(np.float32) / 255, cv2.COLOR_RGB2HLS)
    rate = torch.full(hls.shape[:2], float(hls[..., 1].std()) * intensity * 255)
    hls[..., 0] = (hls[..., 0] + torch.randn(rate.shape).numpy() * color_shift * 360 * intensity) % 360
    hls[..., 1] += torch.poisson(rate).numpy() / 255 * (1 - hls[..., 1])
    return to_bytes(torch.from_numpy(cv2.cvtColor(hls, cv2.COLOR_HLS2RGB)).permute(2, 0, 1) * 255)


def rgb_shift(image: Tensor, shifts: Sequence[float]) -> Tensor:
    """A number added to each channel."""
    return to_bytes(image + torch.tensor(shifts).view(3, 1, 1))


def hsv_shift(image: Tensor, hue: int, saturation: int, value: int) -> Tensor:
    """Numbers added to hue (of 180, a circle), saturation and value (of 255)."""
    hsv = cv2.cvtColor(to_array(image), cv2.COLOR_RGB2HSV) + np.array([hue, saturation, value], np.int16)
    hsv[..., 0] %= 180
    return to_tensor(cv2.cvtColor(hsv.clip(0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB))


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Stored as JPEG of this quality, 1 to 100, and read again."""
    _, file = cv2.imencode(".jpg", to_array(image)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return to_tensor(np.asarray(cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)))


def to_bytes(values: Tensor) -> Tensor:
    return values.round().clamp(0, 255).to(torch.uint8)


def to_array(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).contiguous().numpy()


def to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()
