"""What every data set of pictures does, whatever lists them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reid_pictures import pixels, write_pictures

from tag_core.errors import UnreadableInput, UserError
from tag_plugins_reid.datasets.base import BOTH, GALLERY, JUNK, QUERY, Box, PictureDataset, Row, camera_numbers


def dataset(rows: list[Row], gallery: list[Row] | None = None, classes: list[str] | None = None) -> PictureDataset:
    listed = {"queries": rows, "gallery": gallery or []}
    return PictureDataset("queries", gallery and "gallery", True, classes, [], listed.__getitem__)


def test_a_sample_holds_the_picture_and_who_where_and_what_for(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"])
    sample = dataset([Row(path, "ann", "3")])[0]
    assert np.array_equal(sample.pop("image").numpy(), pixels(path))
    expected = {"source": path, "damage": None, "label": 0, "identity": "ann", "camera": 3, "role": BOTH}
    assert sample == expected


def test_transforms_get_and_give_a_tensor_with_channels_first(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"], (12, 8))
    shapes = []

    def upper_half(picture):  # type: ignore[no-untyped-def]
        shapes.append(tuple(picture.shape))
        return picture[:, :6]

    data = PictureDataset(path, None, False, None, [upper_half, upper_half], list)
    assert data[0]["image"].shape == (3, 6, 8)
    assert shapes == [(3, 12, 8), (3, 6, 8)]
    assert data.example()["image"].shape == (3, 6, 256)


def test_classes_are_the_identities_sorted_and_labels_their_indices() -> None:
    data = dataset([Row("1.png", "cid"), Row("2.png", "ann"), Row("3.png", "cid"), Row("4.png", "10")])
    assert data.classes == ["10", "ann", "cid"]
    assert [data.label(i) for i in range(4)] == [2, 1, 2, 0]


def test_identities_that_were_not_trained_on_keep_their_name_and_have_no_label(tmp_path: Path) -> None:
    new, old = write_pictures(tmp_path, ["a.png", "b.png"])
    data = dataset([Row(new, "new"), Row(old, "old")], classes=["old"])
    assert [(data[i]["identity"], data[i]["label"]) for i in range(2)] == [("new", -1), ("old", 0)]


def test_with_a_gallery_the_source_holds_the_queries_and_nothing_has_a_label() -> None:
    data = dataset([Row("q.png", "1")], [Row("g.png", "1"), Row("j.png", "-1", role=JUNK)], classes=["1"])
    assert data.roles == [QUERY, GALLERY, JUNK]
    assert [data.label(i) for i in range(3)] == [-1, -1, -1]


def test_boxes_of_one_picture_have_a_key_each() -> None:
    boxes = [Row("a.png", "1"), Row("a.png", "2", box=(0, 0, 1, 1)), Row("b.png", "2")]
    data = dataset([*boxes, Row("a.png", "2", box=(0, 0, 2, 2))])
    assert [data.key(i) for i in range(4)] == ["a.png", "a.png#2", "b.png", "a.png#3"]


@pytest.mark.parametrize(
    ("names", "numbers"),
    [
        (["2", "", "10", "2"], [2, -1, 10, 2]),
        (["02", "-1"], [2, -1]),
        (["north", "", "7", "east"], [2, -1, 0, 1]),
        (["9" * 30, "1"], [1, 0]),
        ([], []),
    ],
)
def test_cameras_are_numbers_or_the_places_of_their_names(names: list[str], numbers: list[int]) -> None:
    assert camera_numbers(names) == numbers


def test_without_labels_files_folders_and_patterns_are_taken(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["one/a.png", "one/b.jpg", "c.png"])
    inputs = PictureDataset.expand([str(tmp_path / "one"), str(tmp_path / "*.png")])
    assert inputs == paths
    data = PictureDataset(inputs, "ignored", False, ["x"], [], list)
    assert [set(data[i]) for i in range(3)] == [{"source", "image", "damage"}] * 3
    assert data.classes == []


def test_a_file_that_is_no_picture_is_unreadable_and_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("no picture")
    data = dataset([Row(str(tmp_path / "a.jpg"), "1"), Row(str(tmp_path / "gone.jpg"), "1")])
    for index, reason in enumerate(["not a picture", "No such file"]):
        with pytest.raises(UnreadableInput, match=reason) as caught:
            data[index]
        assert caught.value.source == data.key(index)


def test_the_size_is_that_of_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(tmp_path / "turned.jpg", exif=exif)
    data = dataset([Row(str(tmp_path / "turned.jpg"), "1")])
    assert data.size(0) == tuple(data[0]["image"].shape[1:]) == (30, 20)


def test_a_box_is_cut_out_and_has_the_size_that_was_told(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"], (12, 8))
    data = dataset([Row(path, "1", box=(2, 1, 8, 11), picture_size=(12, 8))])
    sample = data[0]
    assert np.array_equal(sample["image"].numpy(), pixels(path)[:, 1:11, 2:8])
    assert sample["box"] == [2.0, 1.0, 8.0, 11.0]
    assert data.size(0) == (10, 6)


@pytest.mark.parametrize(
    ("box", "size", "reason"),
    [((0, 0, 4, 4), (8, 12), "8x12 pixels, and its boxes are drawn for 12x8"), ((2, 2, 9, 9), None, "reaches to 9,9")],
)
def test_a_box_that_does_not_fit_its_picture_is_unreadable(
    tmp_path: Path, box: Box, size: tuple[int, int] | None, reason: str
) -> None:
    (path,) = write_pictures(tmp_path, ["a.png"], (12, 8))
    with pytest.raises(UnreadableInput, match=reason):
        dataset([Row(path, "1", box=box, picture_size=size)])[0]


def test_gray_and_transparent_pictures_have_three_channels(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "gray.png")
    Image.new("RGBA", (4, 4), (1, 2, 3, 4)).save(tmp_path / "clear.png")
    data = dataset([Row(str(tmp_path / name), "1") for name in ("gray.png", "clear.png")])
    assert [data[i]["image"][:, 0, 0].tolist() for i in range(2)] == [[7, 7, 7], [1, 2, 3]]


def test_a_list_that_cannot_be_read_stops_at_once() -> None:
    def read(source: str) -> list[Row]:
        raise UserError(f"{source}: no such folder")

    with pytest.raises(UserError, match="queries: no such folder"):
        PictureDataset("queries", None, True, None, [], read)


def test_an_error_says_whether_the_queries_or_the_gallery_are_meant(tmp_path: Path) -> None:
    def read(source: str) -> list[Row]:
        if source == "shelve":
            raise UserError("shelve: no such folder")
        return [Row("a.png", "1")]

    for source, gallery, told in (
        ("a", "shelve", "^gallery: shelve: no such"),
        ("shelve", "a", "^source: shelve: no such"),
        ("shelve", None, "^shelve: no such"),
    ):
        with pytest.raises(UserError, match=told):
            PictureDataset(source, gallery, True, None, [], read)


def test_pictures_that_are_query_and_gallery_are_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "tag")
    dataset([Row("q.png", "1")], [Row("g.png", "1")])
    dataset([Row("q.png", "1", box=(0, 0, 1, 1))], [Row("q.png", "1", box=(0, 0, 2, 2))])
    dataset([Row("q.png", "1", "7")], [Row("q.png", "1", "7")])
    assert caplog.messages == []
    dataset([Row("q.png", "1"), Row("r.png", "2"), Row("s.png", "2")], [Row("./q.png", "1"), Row("s.png", "2")])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("2 pictures are both query and gallery, and each finds itself")


def test_a_picture_that_is_listed_again_counts_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "tag")
    data = dataset([Row("a.png", "1"), Row("b.png", "2"), Row("./a.png", "1"), Row("a.png", "1", box=(0, 0, 1, 1))])
    assert [data.key(i) for i in range(len(data))] == ["a.png", "b.png", "a.png#2"]
    assert caplog.messages == ["pictures listed again: 1 (such as ./a.png); each counts once"]


def test_a_picture_of_two_identities_stays_as_both_and_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "tag")
    data = dataset([Row("a.png", "ann"), Row("./a.png", "bo"), Row("c.png", "ann")])
    assert len(data) == 3
    dataset([Row("a.png", "ann", box=(0, 0, 1, 1)), Row("a.png", "bo", box=(0, 0, 1, 1))])
    told = "pictures listed under two identities: 1"
    assert caplog.messages == [f"{told} ({path} as 'ann' and 'bo'); both stay" for path in ("./a.png", "a.png")]
    dataset([Row("a.png", "ann", box=(0, 0, 1, 1)), Row("a.png", "bo", box=(0, 0, 1, 2))])
    assert len(caplog.messages) == 2


def test_how_the_data_were_understood_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tag")
    rows = [Row("a.png", "ann", "3"), Row("b.png", "bo", "4"), Row("c.png", "ann")]
    dataset(rows)
    dataset([Row("q.png", "ann")], [Row("g.png", "bo"), Row("h.png", "cid"), Row("j.png", "-1", role=JUNK)])
    PictureDataset(["a.png"], None, False, None, [], list)
    assert caplog.messages == [
        "queries: 3 pictures, 2 identities, 2 cameras",
        "queries: 1 queries, 2 in the gallery, 3 identities, no cameras",
    ]


def test_a_single_identity_is_told_unless_it_is_looked_for_in_a_gallery(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING", "tag")
    one = [Row("a.png", "apple"), Row("b.png", "apple")]
    dataset(one, classes=["apple"])
    dataset(one, [Row("g.png", "apple")])
    dataset([*one, Row("c.png", "pear")])
    assert caplog.messages == []
    dataset([*one, Row("j.png", "-1", role=JUNK)])
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("queries: has one identity alone (apple)")
