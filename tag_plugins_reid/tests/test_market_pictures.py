"""Names of Market-1501 and its like."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from reid_pictures import SHARED, write_pictures

from tag_core.errors import UserError
from tag_plugins_reid.datasets.market import PATTERNS, MarketPictures, read_named

LABELS = SHARED / "reid" / "market1501_labels.npz"
MARKET = [
    "bounding_box_train/0002_c1s1_000451_03.jpg",
    "bounding_box_train/0007_c3s3_077419_03.jpg",
    "query/0003_c2s1_000001_00.jpg",
    "bounding_box_test/-1_c1s1_000401_03.jpg",
    "bounding_box_test/0000_c4s1_000151_01.jpg",
    "bounding_box_test/0003_c6s1_000002_01.jpg",
]


def listed(data: MarketPictures) -> list[tuple[str, int, int]]:
    return [(row.identity, data.cameras[i], data.roles[i]) for i, row in enumerate(data.rows)]


def test_the_published_folder_is_read_by_its_split(tmp_path: Path) -> None:
    write_pictures(tmp_path, MARKET)
    (tmp_path / "bounding_box_test" / "Thumbs.db").write_bytes(b"")  # the published archive has one
    train = MarketPictures(str(tmp_path))
    assert listed(train) == [("0002", 1, 2), ("0007", 3, 2)]
    assert train.classes == ["0002", "0007"]
    test = MarketPictures(str(tmp_path), split="test", classes=train.classes)
    assert listed(test) == [("0003", 2, 0), ("-1", 1, 3), ("0000", 4, 1), ("0003", 6, 1)]
    assert {test[i]["label"] for i in range(4)} == {-1}


def test_queries_and_gallery_can_be_named_by_themselves(tmp_path: Path) -> None:
    write_pictures(tmp_path, MARKET)
    data = MarketPictures(str(tmp_path / "query"), gallery=str(tmp_path / "bounding_box_test"))
    assert listed(data) == listed(MarketPictures(str(tmp_path), split="test"))


def test_the_folders_of_pytorch_reid_are_read(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["query/0003/0003_c2s1_000001_00.jpg", "gallery/0003/0003_c6s1_000002_01.jpg"])
    assert listed(MarketPictures(str(tmp_path), split="test")) == [("0003", 2, 0), ("0003", 6, 1)]


def test_a_folder_of_pictures_alone_is_for_training_without_junk_and_distractors(tmp_path: Path) -> None:
    write_pictures(tmp_path, MARKET)
    assert listed(MarketPictures(str(tmp_path / "bounding_box_test"))) == [("0003", 6, 2)]


@pytest.mark.parametrize(
    ("pattern", "name", "identity", "camera"),
    [
        ("market1501", "0002_c1s1_000451_03.jpg", "0002", 1),
        ("market1501", "-1_c6s4_000401_03.jpg", "-1", 6),
        ("dukemtmc", "0001_c2_f0046182.jpg", "0001", 2),
        ("msmt17", "0000_012_15_0303morning_0008_0.jpg", "0000", 15),
        ("veri", "0776_c020_00016450_0.jpg", "0776", 20),
        ("cuhk03-np", "0001_c1_1.png", "0001", 1),
        (r"(?P<identity>[a-z]+)-(?:(?P<camera>\w+)-)?", "ann-12-x.png", "ann", 12),
        (r"(?P<identity>[a-z]+)-", "ann-12-x.png", "ann", -1),
    ],
)
def test_published_names_are_understood(tmp_path: Path, pattern: str, name: str, identity: str, camera: int) -> None:
    write_pictures(tmp_path, [name])
    data = MarketPictures(str(tmp_path), gallery=str(tmp_path), pattern=pattern)
    assert (data.rows[0].identity, data.cameras[0]) == (identity, camera)


def test_veri_is_read_by_its_own_folder_names(tmp_path: Path) -> None:
    names = ["image_train/0001_c001_1_0.jpg", "image_query/0002_c002_1_0.jpg", "image_test/0002_c003_1_0.jpg"]
    write_pictures(tmp_path, names)
    assert listed(MarketPictures(str(tmp_path), pattern="veri")) == [("0001", 1, 2)]
    assert listed(MarketPictures(str(tmp_path), split="test", pattern="veri")) == [("0002", 2, 0), ("0002", 3, 1)]


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_is_read_by_its_lists_and_identity_0000_is_someone(tmp_path: Path, train: str, test: str) -> None:
    name = "0000/0000_000_{:02d}_0303morning_0008_0.jpg"
    write_pictures(tmp_path / train, [name.format(1), name.format(2)])
    write_pictures(tmp_path / test, [name.format(3), name.format(4)])
    for part, camera in {"train": 1, "val": 2, "query": 3, "gallery": 4}.items():
        (tmp_path / f"list_{part}.txt").write_text(f"{name.format(camera)} 0\n")
    data = MarketPictures(str(tmp_path), pattern="msmt17")
    assert listed(data) == [("0000", 1, 2)]
    assert data[0]["image"].shape == (3, 12, 8)
    data = MarketPictures(str(tmp_path), split="test", pattern="msmt17", classes=["0000"])
    assert listed(data) == [("0000", 3, 0), ("0000", 4, 1)]
    assert [data[i]["label"] for i in range(2)] == [-1, -1]  # someone else than training's 0000


def test_a_name_that_does_not_fit_is_told_with_the_patterns_there_are(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["0001_c2_f0046182.jpg"])
    with pytest.raises(UserError, match=r"0001_c2_f0046182.jpg: the name does not fit .*market1501, dukemtmc, msmt17"):
        MarketPictures(str(tmp_path))


def test_a_missing_part_is_told(tmp_path: Path) -> None:
    write_pictures(tmp_path, MARKET[:2])
    with pytest.raises(UserError, match="no folder query or image_query in it"):
        MarketPictures(str(tmp_path), split="test")


def test_a_folder_around_the_published_one_is_refused_for_it_holds_the_test_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "Market-1501-v15.09.15", MARKET)
    with pytest.raises(UserError, match="bounding_box_test lies deeper in it"):
        MarketPictures(str(tmp_path))


@pytest.mark.parametrize("pattern", ["market", "(a)", "(?P<identity>"])
def test_a_pattern_that_is_none_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        MarketPictures("x", pattern=pattern)


@pytest.mark.skipif(not LABELS.is_file(), reason="no labels of Market-1501 here")
def test_all_training_names_of_market_1501_give_the_published_labels(tmp_path: Path) -> None:
    known = np.load(LABELS)
    for name in known["train_names"]:
        (tmp_path / str(name)).touch()
    found = {Path(r.path).name: r for r in read_named(str(tmp_path), re.compile(PATTERNS["market1501"]), True, "train")}
    assert len(found) == 12936
    assert len({row.identity for row in found.values()}) == 751
    rows = [found[name] for name in known["train_names"]]
    assert [int(row.identity) for row in rows] == known["train_label"].tolist()
    assert [int(row.camera) for row in rows] == known["train_cam"].tolist()
