from pathlib import Path

import pytest

from tag_core.errors import UserError
from tag_core.media.sources import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Item,
    Listing,
    expand_inputs,
    list_file,
    list_folders,
    list_table,
)

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return str(root)


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_folders_are_classes_in_sorted_order(tmp_path):
    root = touch(tmp_path, "walk/b.mp4", "walk/deep/a.MKV", "run/x.avi", "run/notes.txt", "run/.hidden.mp4")
    listing = list_folders(root)
    assert listing.classes == ["run", "walk"]
    found = [(str(Path(item.path).relative_to(root)), item.labels) for item in listing.items]
    assert found == [("run/x.avi", (0,)), ("walk/b.mp4", (1,)), ("walk/deep/a.MKV", (1,))]


def test_given_classes_keep_the_training_order(tmp_path):
    root = touch(tmp_path, "run/x.mp4")
    listing = list_folders(root, classes=["walk", "run"])
    assert listing.classes == ["walk", "run"]
    assert listing.items[0].labels == (1,)


def test_a_class_that_training_did_not_have_is_refused(tmp_path):
    root = touch(tmp_path, "swim/x.mp4")
    with pytest.raises(UserError, match=r"swim: label 'swim' is not one of the 2 classes"):
        list_folders(root, classes=["walk", "run"])


def test_several_sources_share_their_classes(tmp_path):
    roots = [touch(tmp_path / "a", "walk/1.mp4"), touch(tmp_path / "b", "run/2.mp4", "walk/3.mp4")]
    listing = list_folders(roots)
    assert listing.classes == ["run", "walk"]
    assert [item.labels for item in listing.items] == [(1,), (0,), (1,)]


def test_an_empty_class_folder_is_named(tmp_path):
    root = touch(tmp_path, "walk/1.mp4", "run/readme.txt")
    with pytest.raises(UserError, match=r"run: nothing in this class folder ends in .*fill it or remove it"):
        list_folders(root)


def test_a_missing_folder_and_a_folder_of_files_are_told_apart(tmp_path):
    for name in (str(tmp_path / "none"), write(tmp_path / "x.mp4", "")):
        with pytest.raises(UserError, match="no such folder"):
            list_folders(name)
    with pytest.raises(UserError, match="no class folders in it"):
        list_folders(str(tmp_path))


def test_frame_folders_are_the_folders_that_hold_pictures(tmp_path):
    root = touch(tmp_path, "run/v1/1.jpg", "run/v1/2.jpg", "run/v2/1.png", "walk/v3/1.jpg")
    listing = list_folders(root, IMAGE_SUFFIXES, folders=True)
    assert [Path(item.path).name for item in listing.items] == ["v1", "v2", "v3"]


def test_a_list_file_has_integer_labels_and_paths_relative_to_itself(tmp_path):
    path = write(tmp_path / "list.txt", "# comment\na.mp4 2\n\nsub/my clip.mp4 0\n/abs/c.mp4 1\n")
    listing = list_file(path)
    assert listing.classes == ["0", "1", "2"]
    assert listing.items == (
        Item(str(tmp_path / "a.mp4"), (2,)),
        Item(str(tmp_path / "sub/my clip.mp4"), (0,)),
        Item("/abs/c.mp4", (1,)),
    )
    assert list_file(path, root="/data").items[0].path == "/data/a.mp4"


def test_a_list_file_may_name_its_labels(tmp_path):
    path = write(tmp_path / "list.txt", "a.mp4\tarm wrestling\r\nb.mp4\tabseiling\r\n")
    listing = list_file(path)
    assert listing.classes == ["abseiling", "arm wrestling"]
    assert [item.labels for item in listing.items] == [(1,), (0,)]


def test_a_label_map_names_integer_labels(tmp_path):
    path = write(tmp_path / "list.txt", "a.mp4 1\n")
    label_map = write(tmp_path / "map.txt", "abseiling\nair drumming\n")
    assert list_file(path, label_map=label_map).classes == ["abseiling", "air drumming"]


def test_a_label_map_may_carry_the_index_behind_the_name(tmp_path):
    path = write(tmp_path / "list.txt", "a.mp4 0\nb.mp4 1\n")
    for text, classes in (
        ("air drumming 1\nabseiling 0\n", ["abseiling", "air drumming"]),
        ("route 66\nroute 1\n", ["route 66", "route 1"]),
    ):
        assert list_file(path, label_map=write(tmp_path / "map.txt", text)).classes == classes


def test_several_labels_a_line_need_multi_label(tmp_path):
    path = write(tmp_path / "list.txt", "a.mp4 0 3\nb.mp4 2\n")
    listing = list_file(path, multi_label=True)
    assert [item.labels for item in listing.items] == [(0, 3), (2,)]
    assert listing.classes == ["0", "1", "2", "3"]


def test_lines_of_frame_folders_carry_their_number_of_frames(tmp_path):
    path = write(tmp_path / "list.txt", "imgs 5 1\n")
    assert list_file(path, num_frames=True).items == (Item(str(tmp_path / "imgs"), (1,), 5),)


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.mp4 0\nb.mp4\n", {}, r"line 2: expected 'path label', got 'b.mp4'"),
        ("a.mp4 0\nb.mp4 2\n", {"classes": ["x", "y"]}, r"line 2: label '2' is not one of the 2 classes"),
        ("a.mp4 0\nb.mp4 -1\n", {}, r"line 2: label '-1' is not one of the 1 classes"),
        ("a.mp4 dog\n", {"classes": ["cat"]}, r"line 1: label 'dog' is not one of the 1 classes"),
        ("a.mp4 0\nb.mp4 9999999999\n", {}, "line 2: label '9999999999' is not one of the 10000000 classes"),
        (f"a.mp4 {'9' * 5000}\n", {}, "line 1: label '9{40}' is not one of"),
        (f"imgs {'9' * 5000} 0\n", {"num_frames": True}, "line 1: expected 'folder num_frames label'"),
        ("imgs x 1\n", {"num_frames": True}, r"line 1: expected 'folder num_frames label'"),
        ("imgs 5\n", {"num_frames": True}, r"line 1: expected 'folder num_frames label'"),
        ("imgs 5 1 2\n", {"num_frames": True}, r"line 1: expected 'folder num_frames label'"),
        ("\n# nothing\n", {}, "nothing is listed in it"),
    ],
)
def test_a_malformed_line_is_named(tmp_path, text, options, message):
    with pytest.raises(UserError, match=message):
        list_file(write(tmp_path / "list.txt", text), **options)


def test_a_list_that_is_missing_or_no_text_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        list_file(str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match="cannot be read: embedded null byte"):
        list_file("a\0b")
    (tmp_path / "bad.txt").write_bytes(b"a.mp4 0\n\xff\xfe")
    with pytest.raises(UserError, match=r"not UTF-8 text \(byte 8\)"):
        list_file(str(tmp_path / "bad.txt"))


def test_a_csv_has_named_columns(tmp_path):
    path = write(tmp_path / "t.csv", '\ufefffile,split,class\n"a, b.mp4",x,dog\nc.mp4,y,cat\n')
    listing = list_table(path, path_column="file", label_column="class")
    assert listing.classes == ["cat", "dog"]
    assert listing.items[0] == Item(str(tmp_path / "a, b.mp4"), (1,))


def test_json_lines_have_named_columns_and_lists_of_labels(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"path": "a.mp4", "label": [0, 2]}\n{"path": "b.mp4", "label": [1]}\n')
    assert [item.labels for item in list_table(path, multi_label=True).items] == [(0, 2), (1,)]


def test_a_table_of_videos_without_any_label_has_no_classes(tmp_path):
    path = write(tmp_path / "t.jsonl", '{"path": "a.mp4", "label": []}\n')
    assert list_table(path, multi_label=True) == Listing((Item(str(tmp_path / "a.mp4")),), [])


def test_a_csv_separates_several_labels_by_semicolons(tmp_path):
    path = write(tmp_path / "t.csv", "path,label\na.mp4,dog; cat\n")
    assert list_table(path, multi_label=True).items[0].labels == (1, 0)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "file,label\na.mp4,0\n", r"line 2: no value in column 'path' \(columns: file, label\)"),
        ("t.csv", "path,label\na.mp4,0\n\nb.mp4\n", r"line 4: no value in column 'label'"),
        ("t.csv", "path,label\n", "nothing is listed below its header"),
        ("t.jsonl", '{"path": "a.mp4", "label": 0}\n{"path"\n', "line 2: no JSON object"),
        ("t.jsonl", "[1]\n", "line 1: no JSON object with named columns: .1."),
        ("t.jsonl", "[" * 100_000, "line 1: no JSON object with named columns"),
        ("t.csv", f"path,label\n{'a' * 200_000},0\n", "no table: field larger than field limit"),
    ],
)
def test_a_malformed_row_is_named(tmp_path, name, text, message):
    with pytest.raises(UserError, match=message):
        list_table(write(tmp_path / name, text))


def test_inputs_are_files_as_given_folders_and_patterns(tmp_path):
    root = touch(tmp_path, "b.mp4", "a.mkv", "sub/c.MOV", "notes.txt", "odd.bin")
    given = [f"{root}/odd.bin", root, f"{root}/missing.mp4", f"{root}/*.mp4"]
    found = [str(Path(path).relative_to(root)) for path in expand_inputs(given, VIDEO_SUFFIXES)]
    assert found == ["odd.bin", "a.mkv", "b.mp4", "sub/c.MOV", "missing.mp4"]


def test_expanding_inputs_twice_changes_nothing(tmp_path):
    root = touch(tmp_path, "clip[1].mp4", "clip1.mp4", "empty/notes.txt")
    given = [f"{root}/clip[1].mp4", f"{root}/empty", f"{root}/none*.mp4", root]
    once = expand_inputs(given, VIDEO_SUFFIXES)
    assert once == [*given[:3], f"{root}/clip1.mp4"]
    assert expand_inputs(once, VIDEO_SUFFIXES) == once


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_list_files_of_public_repositories_are_read():
    folder = SHARED / "video" / "annotations"
    assert [i.labels for i in list_file(str(folder / "video_test_list.txt")).items] == [(0,), (0,)]
    multi = list_file(str(folder / "video_test_list_multi_label.txt"), multi_label=True)
    assert [item.labels for item in multi.items] == [(0, 3), (0, 2, 4)]
    frames = list_file(str(folder / "rawframe_test_list.txt"), num_frames=True)
    assert [(Path(i.path).name, i.num_frames, i.labels) for i in frames.items] == [("imgs", 5, (127,))] * 2
    label_map = str(SHARED / "video" / "labels" / "label_map_k400.txt")
    kinetics = list_file(str(folder / "video_test_list.txt"), label_map=label_map).classes
    assert len(kinetics) == 400
    assert kinetics[6] == "arm wrestling"
