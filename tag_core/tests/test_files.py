import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from tag_core.errors import RunFolderError
from tag_core.files import atomic, write_json, write_text


def test_a_written_file_appears_whole_and_alone(tmp_path):
    path = tmp_path / "a.txt"
    with atomic(path) as file:
        file.write("ä\n")
        assert not path.exists()
    assert path.read_bytes() == "ä\n".encode()
    assert os.listdir(tmp_path) == ["a.txt"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), FileNotFoundError(2, "no", "elsewhere")])
def test_an_exception_keeps_the_old_file_and_goes_on_unchanged(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(type(error)) as caught:
        stopped(path, error)
    assert caught.value is error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def stopped(path, error):
    with atomic(path) as file:
        file.write("new")
        raise error


def test_a_full_disk_is_told_with_path_and_advice(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(RunFolderError, match=r"cannot write .*a\.txt: No space left .*its disk has room"):
        stopped(tmp_path / "a.txt", full)
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def in_a_child(tmp_path, text):
    """Runs in a process of its own, which may change its user or its limits."""
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text("import os, resource\n" + textwrap.dedent(text))
    return subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=120)


def test_a_file_size_limit_leaves_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    done = in_a_child(
        tmp_path,
        """
        import sys
        from pathlib import Path
        from tag_core.errors import RunFolderError
        from tag_core.files import atomic, write_text
        import torch

        def save(path):
            with atomic(path, "wb") as file:
                torch.save({"weight": torch.zeros(50_000)}, file)

        def small(path):
            write_text(path, "x" * 5000)  # fails when the file is closed

        def large(path):
            write_text(path, "x" * 5_000_000)

        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        for write in (small, large, save):
            try:
                write(Path(sys.argv[1], "a.txt"))
            except RunFolderError as error:
                print(error)
        """,
    )
    assert done.stdout.count("a.txt: File too large; check") == 3, done.stderr
    assert (tmp_path / "a.txt").read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_a_folder_without_permission_is_told(tmp_path, mode):
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        write_text(Path(folder, "a.txt"), "old")
        os.chmod(folder, mode)
        done = in_a_child(
            tmp_path,
            f"""
            from pathlib import Path
            from tag_core.errors import RunFolderError
            from tag_core.files import write_text
            if os.geteuid() == 0:
                os.seteuid(65534)
            try:
                write_text(Path({folder!r}, "a.txt"), "x")
            except RunFolderError as error:
                print(error)
            """,
        )
        os.chmod(folder, 0o755)
        assert "a.txt: Permission denied; check " in done.stdout, done.stderr
        assert Path(folder, "a.txt").read_text() == "old"
        assert os.listdir(folder) == ["a.txt"]


def test_a_missing_folder_and_a_folder_in_the_way_are_told(tmp_path):
    with pytest.raises(RunFolderError, match="No such file or directory; check that its folder is there"):
        write_text(tmp_path / "none" / "a.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match="Is a directory"):
        write_text(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_link_keeps_pointing_to_what_was_written(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real" / "a.txt")
    write_text(tmp_path / "link", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "a.txt").read_text() == "x"


def test_json_is_strict_and_reads_back_names_that_are_not_utf8(tmp_path):
    name = os.fsdecode(b"clip\xff.mp4")
    write_json(tmp_path / "a.json", {"score": float("nan"), "list": [1.5, float("inf")], "name": name})
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert json.loads(text, parse_constant=pytest.fail) == {"score": None, "list": [1.5, None], "name": name}
