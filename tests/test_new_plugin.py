"""``tag-run new-plugin``: the package it writes installs, passes its own tests, trains and predicts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from PIL import Image
from scratch_site import ScratchSite

from tag_core.cli.new_plugin import _same_minor, write_plugin
from tag_core.errors import UserError

Done = subprocess.CompletedProcess[str]


class Scratch:
    """An environment that sees this one's packages and has the new package installed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "venv", symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        here = sysconfig.get_paths()["purelib"]
        (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        (site / "here.pth").write_text(f"import site; site.addsitedir({here!r})\n")
        written = self.run("-m", "tag_core.cli.main", "new-plugin", "my-model", "--out", str(folder))
        assert written.returncode == 0, written.stderr
        self.package = Path(written.stdout.strip())
        flags = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--quiet"]
        done = self.run("-m", "pip", "install", *flags, str(self.package))
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str) -> Done:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TAG_", "PYTHONPATH"))}
        command = [str(self.python), *arguments]
        return subprocess.run(command, env=kept, cwd=self.folder, capture_output=True, text=True, timeout=300)

    def tag_run(self, *arguments: str) -> Done:
        return self.run("-m", "tag_core.cli.main", *arguments)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    return Scratch(tmp_path_factory.mktemp("new_plugin"))


def test_its_own_tests_pass_and_none_is_skipped(scratch: Scratch) -> None:
    done = scratch.run("-m", "pytest", "-q", "-p", "no:cacheprovider", str(scratch.package))
    assert done.returncode == 0, done.stdout
    assert "8 passed" in done.stdout.splitlines()[-1]


def test_it_shows_up_installed_and_without_remarks(scratch: Scratch) -> None:
    names = {row["name"] for row in json.loads(scratch.tag_run("list", "--json").stdout)}
    assert {f"my-model/{name}" for name in ("small", "poly", "pictures", "classify", "first")} <= names
    rows = {row["name"]: row for row in json.loads(scratch.tag_run("plugins", "--json").stdout)}
    assert rows["my-model"]["package"] == "tag-plugins-my-model"
    assert (rows["my-model"]["status"], rows["my-model"]["notes"]) == ("ok", [])
    for name in ("first", "small"):  # its recipe draws its own pictures: there is nothing to fill in
        (about,) = json.loads(scratch.tag_run("show", f"my-model/{name}", "--json").stdout)
        assert about["example"] == "tag-run train my-model/first"


def test_its_recipe_trains_two_steps_and_the_run_predicts_on_a_picture(scratch: Scratch) -> None:
    options = ["train.epochs=1", "train.batch_size=16", "data.train.source=draw:40", "train.log_every=1"]
    trained = scratch.tag_run("train", "my-model/first", *options, "--out", "run")
    assert trained.returncode == 0, trained.stderr
    rows = [json.loads(line) for line in (scratch.folder / "run" / "scores.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 2]
    assert "top1" in rows[-1]
    Image.new("RGB", (40, 30), "red").save(scratch.folder / "red.png")
    (scratch.folder / "text.png").write_text("no picture")
    predicted = scratch.tag_run("predict", "run", "red.png", "text.png")
    assert predicted.returncode == 3, predicted.stderr
    good, bad = (json.loads(line) for line in predicted.stdout.splitlines())
    assert sorted(good["labels"]) == ["circle", "square"]
    assert bad["source"] == "text.png"
    assert "cannot identify image" in bad["error"]


def test_it_trains_on_folders_of_pictures_too(scratch: Scratch) -> None:
    for number in range(6):
        for colour in ("red", "blue"):
            path = scratch.folder / "pictures" / colour / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), colour).save(path)
    done = scratch.tag_run("check", "my-model/first", "data.train.source=pictures", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["classes"], found["train samples"], found["val samples"]) == (2, 10, 2)
    assert found["backbone my-model/small"] == "tag-plugins-my-model 0.1.0"
    assert found["mean loss after step 1"] > 0


def test_it_trains_uninstalled_in_several_processes_that_each_resolve_names(tmp_path: Path) -> None:
    site = ScratchSite(tmp_path)
    shutil.copytree(write_plugin("other", tmp_path) / "src" / "tag_plugins_other", site.packages / "tag_plugins_other")
    options = ["train.epochs=1", "train.batch_size=16", "data.train.source=draw:40", "train.workers=1"]
    arguments = ["other/first", *options, "--out", "run", "--procs", "2", "--plugin", "tag_plugins_other.plugin"]
    done = site.run("train", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scores"]["step"] == 2


def test_every_file_is_clean_for_ruff(tmp_path: Path) -> None:
    folder = write_plugin("mine", tmp_path)
    for arguments in (["check"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache", "--line-length", "120"]
        done = subprocess.run([*command, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["My_Model", "", "a--b", "-a", "1x", "my.model", "../x", "core", "video", "reid"])
def test_a_name_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot name a plugin|is taken by another plugin"):
        write_plugin(name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_as_it_is(tmp_path: Path) -> None:
    folder = write_plugin("mine", tmp_path)
    (folder / "README.md").write_text("my own")
    with pytest.raises(UserError, match="exists already; remove it, or choose another name or --out"):
        write_plugin("mine", tmp_path)
    assert (folder / "README.md").read_text() == "my own"


def test_a_folder_that_cannot_be_written_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written: Not a directory"):
        write_plugin("mine", tmp_path / "file")


@pytest.mark.parametrize(
    ("version", "requirement"), [("0.1.0", ">=0.1,<0.2"), ("0.12.3.dev1", ">=0.12,<0.13"), ("2", ">=2.0,<2.1")]
)
def test_the_new_package_asks_for_compatible_versions_of_the_core(version: str, requirement: str) -> None:
    assert _same_minor(version) == requirement
