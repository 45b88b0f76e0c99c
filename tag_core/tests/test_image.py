"""Pictures of every kind come as upright RGB; what is none is told by name and cause."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.media.image import image_size, read_image

COLOURS = np.array(  # [2, 3, 3]: every corner is known after any turn
    [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [255, 255, 255]]], np.uint8
)
TURNED = {  # what a camera stores for an upright picture, by EXIF orientation (CIPA DC-008, section 4.6.4)
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a.swapaxes(0, 1), 2),
    8: lambda a: np.rot90(a, -1),
}


@pytest.fixture(autouse=True)
def _nothing_is_warned() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def saved(path: Path, image: Image.Image, **options: object) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(path, **options)
    return path


def agrees(path: Path) -> np.ndarray:
    found = read_image(path)
    assert found.dtype == np.uint8
    assert found.shape[2] == 3
    assert found.flags.writeable
    assert image_size(path) == found.shape[:2]
    return found


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("suffix", ["png", "tiff", "webp", "jpg"])
def test_all_eight_orientations_are_turned_upright(orientation: int, suffix: str, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = TURNED[orientation](COLOURS.repeat(16, 0).repeat(16, 1))  # blocks of JPEG's size
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(np.ascontiguousarray(stored)), exif=exif, **options)
    found = agrees(path)[8::16, 8::16].astype(int)
    assert np.abs(found - COLOURS).max() <= (5 if suffix == "jpg" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0garbage", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b"\xff" * 40])
def test_damaged_exif_leaves_the_picture_as_it_is(exif: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (5, 3), (200, 200, 200)), exif=exif)
    assert agrees(path).shape == (3, 5, 3)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_turns_nothing(value: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert agrees(saved(tmp_path / "a.jpg", Image.new("RGB", (5, 3)), exif=exif)).shape == (3, 5, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff", "gif"])
def test_gray_is_repeated(suffix: str, tmp_path: Path) -> None:
    gray = np.full((6, 4), 77, np.uint8)
    found = agrees(saved(tmp_path / f"a.{suffix}", Image.fromarray(gray)))
    np.testing.assert_array_equal(found, gray[..., None].repeat(3, 2))


def test_black_and_white_is_0_and_255(tmp_path: Path) -> None:
    ink = np.array([[True, False, True]])
    found = agrees(saved(tmp_path / "a.png", Image.fromarray(ink)))
    assert found[0, :, 0].tolist() == [255, 0, 255]


def test_transparency_is_left_out(tmp_path: Path) -> None:
    alpha = np.dstack([COLOURS, np.array([[0, 128, 255]] * 2, np.uint8)])
    np.testing.assert_array_equal(agrees(saved(tmp_path / "a.png", Image.fromarray(alpha))), COLOURS)
    gray = Image.merge("LA", [Image.new("L", (2, 2), 9), Image.new("L", (2, 2), 0)])
    assert np.unique(agrees(saved(tmp_path / "b.png", gray))).tolist() == [9]


@pytest.mark.parametrize("transparency", [0, bytes([0, 128, 255, 255, 255, 255])])
def test_a_palette_with_transparency_gives_its_colours(transparency: int | bytes, tmp_path: Path) -> None:
    image = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3), "P")
    image.putpalette(COLOURS.tobytes())
    np.testing.assert_array_equal(agrees(saved(tmp_path / "a.png", image, transparency=transparency)), COLOURS)


def test_cmyk_is_converted(tmp_path: Path) -> None:
    inks = np.zeros((4, 4, 4), np.uint8)
    inks[..., 0] = 255  # cyan
    path = saved(tmp_path / "a.tiff", Image.fromarray(inks, "CMYK"))
    assert np.unique(agrees(path).reshape(-1, 3), axis=0).tolist() == [[0, 255, 255]]
    found = agrees(saved(tmp_path / "a.jpg", Image.fromarray(inks, "CMYK"), quality=100))
    assert np.abs(found.astype(int) - [0, 255, 255]).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_16_bits_become_8(suffix: str, tmp_path: Path) -> None:
    deep = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    found = agrees(saved(tmp_path / f"a.{suffix}", Image.fromarray(deep)))
    assert found[0, :, 0].tolist() == (deep[0] / 257).round().astype(int).tolist()
    np.testing.assert_array_equal(found[..., 0], found[..., 2])


def test_whole_and_fractional_numbers_of_32_bits_are_read(tmp_path: Path) -> None:
    small = Image.fromarray(np.array([[0, 100, 255]], np.int32))
    large = Image.fromarray(np.array([[-5, 25700, 70000]], np.int32))
    fraction = Image.fromarray(np.array([[0.4, 99.6, 300.0]], np.float32))
    share = Image.fromarray(np.array([[0, 0.392, 1]], np.float32))
    images = enumerate([small, large, fraction, share])
    found = [agrees(saved(tmp_path / f"{i}.tiff", image))[0, :, 0].tolist() for i, image in images]
    assert found == [[0, 100, 255]] * 4


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tiff"])
def test_of_several_pictures_it_is_the_first(suffix: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "blue", "lime")]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    assert np.unique(agrees(path).reshape(-1, 3), axis=0).tolist() == [[255, 0, 0]]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (20000, 10), (10, 20000)])
def test_very_small_and_very_long_pictures_are_read(width: int, height: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.new("RGB", (width, height), (1, 2, 3)))
    found = agrees(path)
    assert found.shape == (height, width, 3)
    assert (found == [1, 2, 3]).all()


def test_a_large_picture_gives_no_warning_and_a_bomb_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.png", Image.new("L", (40, 30)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert agrees(path).shape == (30, 40, 3)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    for read in (read_image, image_size):
        with pytest.raises(UnreadableInput, match=r"a\.png: Image size \(1200 pixels\)"):
            read(path)


def _empty(path: Path) -> None:
    path.touch()


def _html(path: Path) -> None:
    path.write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")


def _noise(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 4)


def _nothing(path: Path) -> None:
    pass


BAD = {
    "empty file (0 bytes)": _empty,
    "not a picture: a text file": _html,
    "cannot identify it as a picture": _noise,
    "No such file or directory": _nothing,
    "is a folder, with no picture in it": Path.mkdir,
}


@pytest.mark.parametrize("cause", BAD)
@pytest.mark.parametrize("read", [read_image, image_size])
def test_what_is_no_picture_is_told_by_name_and_cause(read: object, cause: str, tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    BAD[cause](path)
    with pytest.raises(UnreadableInput) as caught:
        read(path)  # type: ignore[operator]
    assert str(caught.value) == f"{path}: {cause}"


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_a_truncated_picture_is_refused(suffix: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableInput, match=rf"a\.{suffix}: \w"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_the_size_stands_in_the_header(suffix: str, tmp_path: Path) -> None:
    path = saved(tmp_path / f"a.{suffix}", Image.new("RGB", (300, 200)))
    path.write_bytes(path.read_bytes()[:700] if suffix == "jpg" else path.read_bytes()[:60])
    assert image_size(path) == (200, 300)
    with pytest.raises(UnreadableInput):
        read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff", "gif", "bmp"])
def test_flipped_bytes_give_a_picture_or_an_unreadable_input(suffix: str, tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = generator.integers(0, 256, (16, 12, 3), dtype=np.uint8)
    data = saved(tmp_path / f"a.{suffix}", Image.fromarray(noise), exif=exif).read_bytes()
    read, refused = 0, []
    for _ in range(100):
        broken = np.frombuffer(data, np.uint8).copy()
        broken[generator.integers(0, min(len(broken), 300), 3)] = generator.integers(0, 256, 3)
        try:
            read += read_image(io.BytesIO(broken.tobytes()), "it").ndim == 3
        except UnreadableInput as error:
            refused.append(error)
    assert read + len(refused) == 100
    assert refused
    assert all(error.source == "it" and error.reason.strip() for error in refused)


def test_an_open_file_is_read_under_the_name_given() -> None:
    file = io.BytesIO()
    Image.fromarray(COLOURS).save(file, "PNG")
    file.seek(0)
    np.testing.assert_array_equal(read_image(file), COLOURS)
    with pytest.raises(UnreadableInput, match=r"^video\.pkl, frame 3: cannot identify it as a picture$"):
        read_image(io.BytesIO(b"\0" * 99), "video.pkl, frame 3")
    with pytest.raises(UnreadableInput, match="^picture: "):
        read_image(io.BytesIO())


def test_a_name_that_no_file_can_have_is_refused() -> None:
    with pytest.raises(UnreadableInput, match="null"):
        read_image("a\0b.jpg")


def test_files_are_closed_again(tmp_path: Path) -> None:
    good, bad = saved(tmp_path / "a.tiff", Image.fromarray(COLOURS)), tmp_path / "b.jpg"
    bad.write_bytes(saved(tmp_path / "c.jpg", Image.new("RGB", (99, 99))).read_bytes()[:300])
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else pytest.skip("no /proc")
    for _ in range(5):
        agrees(good)
        with pytest.raises(UnreadableInput):
            read_image(bad)
    assert len(os.listdir("/proc/self/fd")) == before
