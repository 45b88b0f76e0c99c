"""The page of answers in a real browser: the frames of right and wrong neighbours can be told apart."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from search_data import COLOURS, write_pictures

from tag_plugins_search.answers import search
from tag_plugins_search.embeddings import labelled
from tag_plugins_search.page import write_page
from tag_plugins_search.store import IndexFolder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to look at a page with")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=900,700"),
)
FRAMES = {"light": ((22, 117, 60), (179, 38, 30)), "dark": ((95, 208, 138), (255, 143, 128))}


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_right_and_wrong_are_framed_in_their_colours_around_the_pictures(tmp_path: Path, theme: str) -> None:
    records = list(labelled(iter(write_pictures(tmp_path / "pictures", 2)), "folder"))
    index = IndexFolder.build(tmp_path / "colours", records)
    query = next(labelled(iter(write_pictures(tmp_path / "queries", 1)), "folder"))
    write_page(tmp_path / "page.html", search(index, [query], 3), index)
    shot, scheme = tmp_path / "page.png", f"--blink-settings=preferredColorScheme={int(theme == 'light')}"
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", scheme, f"--screenshot={shot}"]
    subprocess.run([*command, (tmp_path / "page.html").as_uri()], capture_output=True, check=True, timeout=120)
    seen = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    assert seen[5, 5].min() > 240 if theme == "light" else seen[5, 5].max() < 40

    def pixels(colour: tuple[int, ...], tolerance: int) -> np.ndarray:
        return np.argwhere(np.abs(seen - colour).max(-1) <= tolerance)

    right, wrong = (pixels(colour, 2) for colour in FRAMES[theme])
    below = right[:, 0] > 150  # under the sentence that explains the colours
    right, wrong = right[below], wrong[wrong[:, 0] > 150]
    assert len(right) > 2 * 500, "two frames of some hundred pixels' length, three wide"
    assert len(wrong) > 500
    assert right[:, 1].max() < wrong[:, 1].min(), "the right ones come first"
    red = pixels(COLOURS["red"], 12)
    columns = np.unique(red[:, 1])
    assert 1 + (np.diff(columns) > 5).sum() == 3, "the query and two neighbours are red"
