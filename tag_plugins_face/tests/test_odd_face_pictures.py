"""Faces in pictures and videos of every odd kind, through ``predict``: the right result, or a record that says why not.

With trained weights where they are here; with random ones otherwise, which must find the same in the same pixels.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from face_pictures import FACE_DATA, picture, wipe_packet, write_video
from PIL import Image, ImageOps

import tag_core
from tag_core.cli.main import main
from tag_core.config import build_component
from tag_core.records import Record, read_records

RECIPE = "face/retinaface-mobilenet0.25"
TRAINED = FACE_DATA / "weights" / "retinaface_mobilenet0.25.pth"
ASTRONAUT = FACE_DATA / "images" / "skimage_astronaut.png"
needs_data = pytest.mark.skipif(not TRAINED.is_file(), reason="shared/data is not here")
ORIENTATION = 0x0112


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    if TRAINED.is_file():
        return str(TRAINED)
    torch.manual_seed(0)
    task = build_component("task", "face/detection", {"backbone": "face/mobilenet0.25"}, classes=["face"])
    path = tmp_path_factory.mktemp("weights") / "random.pth"
    torch.save(task.state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """uint8 [H, W, 3] with a face."""
    if ASTRONAUT.is_file():
        return np.array(Image.open(ASTRONAUT).convert("RGB"))[:300, 100:420]
    return picture(0, (300, 320), 2, 80, 100)[0]


def found(weights: str, inputs: Sequence[object] | object, *overrides: str) -> list[Record]:
    paths = [str(path) for path in (inputs if isinstance(inputs, list) else [inputs])]
    options = [f"weights={weights}", "eval.workers=0", "distribution=core/cpu", *overrides]
    return list(tag_core.predict(RECIPE, paths, options))


def same_faces(weights: str, path: Path, shown: Image.Image) -> None:
    """The picture at ``path`` gives what the RGB picture that it shows does."""
    shown.save(path.parent / "shown.png")
    odd, plain = found(weights, [path, path.parent / "shown.png"])
    assert odd.error is None
    assert odd.source == str(path)
    assert plain.boxes
    assert len(odd.boxes or []) == len(plain.boxes)
    for field in ("boxes", "scores", "keypoints"):
        np.testing.assert_allclose(getattr(odd, field), getattr(plain, field), atol=1e-4)


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


STORED: dict[str, tuple[str, Callable[[Image.Image], Image.Image]]] = {
    "grayscale": ("a.png", lambda image: image.convert("L")),
    "gray with alpha": ("a.png", lambda image: with_alpha(image).convert("LA")),
    "RGBA": ("a.png", with_alpha),
    "palette": ("a.png", lambda image: image.quantize(64)),
    "black and white": ("a.png", lambda image: image.convert("1")),
    "CMYK": ("a.tif", lambda image: image.convert("CMYK")),
    "upper case": ("A.PNG", lambda image: image),
}
"""Kind -> file name, and what is stored."""


@pytest.mark.parametrize("kind", STORED)
def test_a_picture_of_any_mode_gives_the_faces_of_what_it_shows(
    tmp_path: Path, weights: str, photo: np.ndarray, kind: str
) -> None:
    name, convert = STORED[kind]
    stored = convert(Image.fromarray(photo))
    stored.save(tmp_path / name)
    same_faces(weights, tmp_path / name, stored.convert("RGB"))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_sixteen_bits_become_eight(tmp_path: Path, weights: str, photo: np.ndarray, name: str, mode: str) -> None:
    shown = Image.fromarray(photo).convert(mode)
    cv2.imwrite(str(tmp_path / name), np.array(shown)[..., :: -1 if mode == "RGB" else 1].astype(np.uint16) * 257)
    same_faces(weights, tmp_path / name, shown.convert("RGB"))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_pictures_in_a_file_the_first_counts(
    tmp_path: Path, weights: str, photo: np.ndarray, name: str
) -> None:
    first, second = Image.fromarray(photo).quantize(64), Image.fromarray(255 - photo[::-1]).quantize(64)
    if name != "a.gif":
        first, second = first.convert("RGB"), second.convert("RGB")
    options = {"lossless": True} if name == "a.webp" else {}
    first.save(tmp_path / name, save_all=True, append_images=[second], **options)
    assert getattr(Image.open(tmp_path / name), "n_frames", 1) == 2
    same_faces(weights, tmp_path / name, first.convert("RGB"))


def save_turned(path: Path, photo: np.ndarray, orientation: int) -> None:
    """Stored so that ``orientation`` makes it the photo."""
    image, exif = Image.fromarray(photo), Image.Exif()
    image.getexif()[ORIENTATION] = {6: 8, 8: 6}.get(orientation, orientation)  # the inverse of a turn
    exif[ORIENTATION] = orientation
    ImageOps.exif_transpose(image).save(path, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture(tmp_path: Path, weights: str, photo: np.ndarray, orientation: int) -> None:
    save_turned(tmp_path / "a.png", photo, orientation)
    same_faces(weights, tmp_path / "a.png", Image.fromarray(photo))


def overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Intersection over union."""
    (a, b, c, d), (e, f, g, h) = first, second
    inside = max(0, min(c, g) - max(a, e)) * max(0, min(d, h) - max(b, f))
    return inside / ((c - a) * (d - b) + (g - e) * (h - f) - inside)


@needs_data
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_face_of_a_turned_photo_is_where_it_is_in_the_upright_one(
    tmp_path: Path, weights: str, photo: np.ndarray, orientation: int
) -> None:
    save_turned(tmp_path / "a.jpg", photo, orientation)
    Image.fromarray(photo).save(tmp_path / "shown.png")
    odd, plain = found(weights, [tmp_path / "a.jpg", tmp_path / "shown.png"])
    assert [score > 0.6 for score in odd.scores or []].count(True) == 1
    assert overlap((odd.boxes or [])[0], (plain.boxes or [])[0]) > 0.9
    np.testing.assert_allclose((odd.keypoints or [])[0], (plain.keypoints or [])[0], atol=3)


@needs_data
def test_the_face_of_a_cmyk_jpeg_is_found(tmp_path: Path, weights: str, photo: np.ndarray) -> None:
    Image.fromarray(photo).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(photo).save(tmp_path / "shown.png")
    odd, plain = found(weights, [tmp_path / "a.jpg", tmp_path / "shown.png"])
    assert (odd.scores or [0])[0] > 0.95
    assert overlap((odd.boxes or [])[0], (plain.boxes or [])[0]) > 0.85


def bomb(path: Path) -> None:
    """The start of a PNG of 60000 x 60000 pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header)))


def cut(path: Path, photo: np.ndarray) -> None:
    Image.fromarray(photo).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


UNREADABLE: dict[str, Callable[[Path, np.ndarray], object]] = {
    "cut.jpg": cut,
    "cut.png": cut,
    "cut.webp": cut,
    "empty.jpg": lambda path, photo: path.touch(),
    "text.jpg": lambda path, photo: path.write_text("<html>not found</html>"),
    "noise.png": lambda path, photo: path.write_bytes(np.random.default_rng(0).bytes(3000)),
    "bomb.png": lambda path, photo: bomb(path),
    "folder": lambda path, photo: path.mkdir(),
    "missing.jpg": lambda path, photo: None,
    "text.mp4": lambda path, photo: path.write_text("no video"),
    "missing.mp4": lambda path, photo: None,
}


def test_what_cannot_be_read_is_recorded_and_the_rest_goes_on(tmp_path: Path, weights: str, photo: np.ndarray) -> None:
    inputs = []
    for name, make in UNREADABLE.items():
        make(tmp_path / name, photo)
        inputs.append(str(tmp_path / name))
    Image.fromarray(photo).save(tmp_path / "good.png")
    *bad, good = found(weights, [*inputs, tmp_path / "good.png"], "eval.workers=2")
    assert [record.source for record in bad] == inputs
    for record in bad:
        assert record.error
        assert record.boxes is None
        assert "\n" not in record.error
    assert good.error is None
    assert good.boxes


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (10, 20_000), (20_000, 10), (33, 31)])
def test_tiny_and_very_long_pictures_are_pictures(tmp_path: Path, weights: str, size: tuple[int, int]) -> None:
    Image.fromarray(np.full((*size, 3), 128, np.uint8)).save(tmp_path / "a.png")
    scaled = ["data.test.transforms=[{name='face/resize', short_side=64, max_side=2150}]"]
    for overrides in ([], scaled):
        (record,) = found(weights, tmp_path / "a.png", *overrides)
        assert record.error is None
        assert len(record.boxes or []) == len(record.scores or []) == len(record.keypoints or [])
        if TRAINED.is_file():
            assert record.boxes == []


@needs_data
@pytest.mark.parametrize("transform", ["{name='face/resize', short_side=450}", "{name='face/square-resize', size=480}"])
def test_faces_of_a_resized_picture_are_in_pixels_of_the_original(
    tmp_path: Path, weights: str, photo: np.ndarray, transform: str
) -> None:
    Image.fromarray(photo).save(tmp_path / "a.png")
    (plain,), (resized,) = (
        found(weights, tmp_path / "a.png", f"data.test.transforms={t}") for t in ("[]", f"[{transform}]")
    )
    assert overlap((plain.boxes or [])[0], (resized.boxes or [])[0]) > 0.85
    np.testing.assert_allclose((plain.keypoints or [])[0], (resized.keypoints or [])[0], atol=4)


@needs_data
def test_where_there_is_no_face_the_lists_are_empty(tmp_path: Path, weights: str) -> None:
    blue = np.zeros((240, 320, 3), np.uint8) + np.linspace(60, 220, 320, dtype=np.uint8)[None, :, None]
    Image.fromarray(blue).save(tmp_path / "sky.png")
    (record,) = found(weights, tmp_path / "sky.png")
    assert (record.error, record.boxes, record.scores, record.keypoints) == (None, [], [], [])


@needs_data
def test_a_thousand_faces_are_found_where_as_many_may_be_kept(tmp_path: Path, weights: str, photo: np.ndarray) -> None:
    (single,) = found(weights, ASTRONAUT)
    x1, y1, x2, y2 = (single.boxes or [])[0]
    margin = (x2 - x1) / 4
    face = (
        Image.open(ASTRONAUT)
        .convert("RGB")
        .crop((int(x1 - margin), int(y1 - margin), int(x2 + margin), int(y2 + margin)))
    )
    width, height = 56, 64
    tile = np.array(face.resize((width, height)))
    Image.fromarray(np.tile(tile, (25, 40, 1))).save(tmp_path / "crowd.png")
    (published,) = found(weights, tmp_path / "crowd.png")
    assert len(published.boxes or []) == 750
    (record,) = found(weights, tmp_path / "crowd.png", "task.keep=2000", "task.top_k=50000")
    sure = np.array(record.boxes)[np.array(record.scores) > 0.6]
    assert len(sure) == 1000
    centres = (sure[:, :2] + sure[:, 2:]) / 2 // (width, height)
    assert len(np.unique(centres, axis=0)) == 1000


def moving(photo: np.ndarray, count: int) -> list[np.ndarray]:
    """The photo's part that moves 4 pixels to the left each frame."""
    return [photo[:, 4 * number : 4 * number + 200] for number in range(count)]


@pytest.mark.parametrize(("interval", "batch"), [(1, 1), (3, 4), (50, 1)])
def test_a_video_gives_a_record_of_each_chosen_frame(
    tmp_path: Path, weights: str, photo: np.ndarray, interval: int, batch: int
) -> None:
    frames = moving(photo, 20)
    path = write_video(tmp_path / "a.mp4", frames)
    Image.fromarray(photo).save(tmp_path / "b.png")
    options = [f"data.test.frame_interval={interval}", f"eval.batch_size={batch}", "eval.workers=2"]
    *records, still = found(weights, [path, tmp_path / "b.png"], *options)
    chosen = list(range(0, 20, interval))
    assert [record.frame for record in records] == chosen
    assert [record.time for record in records] == pytest.approx([frame / 10 for frame in chosen])
    assert {record.source for record in records} == {path}
    assert all(record.error is None and record.damage is None for record in records)
    assert (still.source, still.frame, still.time) == (str(tmp_path / "b.png"), None, None)
    if TRAINED.is_file():
        for record in records:
            assert [score > 0.6 for score in record.scores or []].count(True) == 1
        first = np.array((records[0].boxes or [])[0])
        for record in records[1:]:
            moved = first - np.array([4, 0, 4, 0]) * (record.frame or 0)
            assert overlap((record.boxes or [])[0], moved) > 0.8


def run(*arguments: object) -> int:
    return main(list(map(str, arguments)))


def test_the_command_goes_on_past_a_video_that_cannot_be_read(
    tmp_path: Path, weights: str, photo: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.mp4").write_bytes(b"\0\0\0\x18ftypmp42 and nothing more")
    write_video(tmp_path / "in" / "good.mp4", moving(photo, 12))
    code = run("predict", RECIPE, tmp_path / "in", f"weights={weights}", "eval.workers=0", "--out", tmp_path / "out")
    assert code == 3
    bad, *good = read_records(tmp_path / "out" / "predictions.jsonl")
    assert bad.source == str(tmp_path / "in" / "bad.mp4")
    assert bad.error
    assert bad.frame is None
    assert [record.frame for record in good] == list(range(12))
    assert "read 1 of 2 inputs" in capsys.readouterr().err


def test_a_damaged_video_gives_the_faces_of_its_good_part(tmp_path: Path, weights: str, photo: np.ndarray) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(photo, 28), key_every=12)
    whole = found(weights, path)
    wipe_packet(path, 12)
    results = [found(weights, path, f"eval.workers={workers}") for workers in (0, 2)]
    assert results[0] == results[1]
    read = {record.frame: record for record in results[0] if record.error is None}
    assert set(read) >= {*range(8), *range(24, 28)}
    assert not set(read) & set(range(12, 24))
    for frame, record in read.items():
        np.testing.assert_allclose(record.boxes or [], whole[frame or 0].boxes or [], atol=1e-3)
    assert any("of 28 frames are usable" in (record.damage or record.error or "") for record in results[0])
