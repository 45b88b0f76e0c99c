"""Reading dist-info folders: the same answer as importlib.metadata and packaging give."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from tag_core.discovery import GROUP, Claim, find_claims, installed_version, misfit, read_metadata


def test_the_installed_plugins_are_those_of_importlib_metadata() -> None:
    def facts(point: metadata.EntryPoint) -> tuple[str, str, str, str, tuple[str, ...]]:
        assert point.dist is not None
        return point.name, point.value, point.dist.name, point.dist.version, tuple(point.dist.requires or ())

    expected = {facts(point) for point in metadata.entry_points(group=GROUP)}
    found = find_claims()
    assert ("core", "tag_core.builtin.plugin") in [claim[:2] for claim in found]
    assert set(found) == expected
    assert len(found) == len(expected)


def test_versions_are_those_of_importlib_metadata() -> None:
    for package in ("tag-core", "pytest", "tag_core", "Pluggy"):
        assert installed_version(package) == metadata.version(package)
    assert installed_version("no-such-package") == "0"


def install(site: Path, folder: str, entry_points: str, metadata_text: str = "") -> None:
    (site / folder).mkdir(parents=True)
    (site / folder / "entry_points.txt").write_text(entry_points)
    if metadata_text:
        (site / folder / "METADATA").write_text(metadata_text)


def test_a_package_found_twice_counts_once_and_the_first_on_the_path_wins(tmp_path: Path) -> None:
    for number in (1, 2):
        site = tmp_path / str(number)
        install(site, f"My.Pkg-{number}.dist-info", f"[tag.plugins]\nmine = my_pkg{number}\n")
    found = find_claims([str(tmp_path / "1"), str(tmp_path / "2"), str(tmp_path / "1"), str(tmp_path / "none")])
    assert [(claim.module, claim.package) for claim in found] == [("my_pkg1", "my-pkg")]


def test_other_groups_and_comments_are_passed_over(tmp_path: Path) -> None:
    lines = ["[console_scripts]", "a = b:c", "[ tag.plugins ]", "no = no", "[tag.plugins]", "# note"]
    text = "\n".join([*lines, "mine = json.decoder", "[x]", "y = z", ""])
    install(tmp_path, "x-1.0.dist-info", text)
    assert find_claims([str(tmp_path)]) == [Claim("mine", "json.decoder", "x", "")]


def test_only_the_headers_of_metadata_are_read(tmp_path: Path) -> None:
    text = "Name: A.b\nVersion: 2\nRequires-Dist: x\nRequires-Dist: y; extra == 'z'\n\nRequires-Dist: no\nName: no\n"
    install(tmp_path, "A.b-2.dist-info", "", text)
    assert read_metadata(str(tmp_path / "A.b-2.dist-info")) == ("A.b", "2", ("x", "y; extra == 'z'"))


@pytest.mark.parametrize("version", ["0.1.0", "0.2", "1.0", "0.1.5.dev1", "0.10"])
@pytest.mark.parametrize(
    "bounds", ["", ">=0.1", ">=0.1,<0.2", ">= 0.1.0, < 1", "<0.2.0", "~=0.1", "==0.1.*", ">=0.1,!=0.1.0", ">=0.2"]
)
def test_a_version_fits_exactly_where_packaging_says_so(
    bounds: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tag_core.discovery.installed_version", lambda package: version)
    reason = misfit(["other>=9", f"tag_core{bounds}", "tag-core-extras>=9"])
    assert (reason is None) == SpecifierSet(bounds).contains(version, prereleases=True)
    assert reason is None or reason.endswith(f"this is tag-core {version}; upgrade one of them")


def test_a_requirement_of_an_extra_does_not_bind() -> None:
    assert misfit(["tag-core>=99; extra == 'future'"]) is None
