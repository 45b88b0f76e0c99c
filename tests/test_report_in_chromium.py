"""A run's report in a real browser: what is in the rendered page, and what can be seen of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tag_core.records import Record
from tag_core.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine to look at a page with")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,2400"),
)
CLASSES = ["walking", "<b>jumping</b>", "跳舞"]
MATRIX = [[8, 1, 1], [0, 9, 1], [3, 0, 7]]
BLUE = {"light": (98, 168, 255), "dark": (40, 104, 190)}


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run with three classes; one clip classified right, one wrong, one lost."""
    folder = tmp_path_factory.mktemp("run")
    clip = folder / "clip.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for level in range(0, 250, 25):
            picture = np.full((48, 64, 3), level, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    records = [
        Record(source=str(clip), labels=[CLASSES[0], CLASSES[2]], scores=[0.9, 0.1], truth=CLASSES[0]),
        Record(source=str(clip), labels=[CLASSES[1], CLASSES[2]], scores=[0.8, 0.2], truth=CLASSES[2]),
        Record(source="lost.mp4", labels=[CLASSES[1]], scores=[0.7], truth=CLASSES[2]),
        Record(source="<script>document.title='hacked'</script>.mp4", error="empty file"),
    ]
    (folder / "predictions.jsonl").write_text("".join(f"{r.to_json()}\n" for r in records), encoding="utf-8")
    metrics = {"scores": {"val_loss": 0.4, "top1": 24 / 30}, "tables": {"confusion_matrix": MATRIX}}
    (folder / "metrics.json").write_text(json.dumps({**metrics, "classes": CLASSES}))
    rows = [{"epoch": i // 10, "step": i, "train_loss": 3 / i, "lr": 0.1} for i in range(1, 41)]
    rows += [{"epoch": i, "step": 10 * i + 10, "top1": 0.2 * (i + 1), "val_loss": 2 / (i + 1)} for i in range(4)]
    (folder / "scores.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return write_report(folder)


def chromium(report: Path, profile: Path, *flags: str) -> str:
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", *flags, report.as_uri()]
    return subprocess.run(command, capture_output=True, check=True, timeout=120, encoding="utf-8").stdout


def test_the_rendered_page_says_what_the_run_came_to(report: Path, tmp_path: Path) -> None:
    page = chromium(report, tmp_path, "--dump-dom")
    for name in ("walking", "&lt;b&gt;jumping&lt;/b&gt;", "跳舞"):
        assert page.count(f"<td>{name}</td>") == 1  # its line in the table of classes
    assert re.search(r"<dt>top1</dt>\s*<dd>0\.8000</dd>", page)
    assert page.count('<img class="sheet"') == 2
    assert page.count("No picture: no such file") == 1
    assert page.count("<polyline") == 4
    assert "hacked</title>" not in page


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_confusion_matrix_and_the_frames_can_be_seen(report: Path, tmp_path: Path, theme: str) -> None:
    path, scheme = tmp_path / "page.png", f"--blink-settings=preferredColorScheme={int(theme == 'light')}"
    chromium(report, tmp_path / "profile", f"--screenshot={path}", scheme)
    seen = np.asarray(Image.open(path).convert("RGB")).astype(int)
    ground = seen[5, 5]
    assert ground.min() > 240 if theme == "light" else ground.max() < 40
    cells = [diagonal_cell(seen, ground, BLUE[theme], row[i] / sum(row)) for i, row in enumerate(MATRIX)]
    steps = np.diff(cells, axis=0)
    assert (steps > 15).all()  # each below and to the right of the one before
    assert np.ptp(steps, axis=0).max() <= 2
    assert (np.ptp(seen, axis=-1) == 0)[(seen[..., 0] > 95) & (seen[..., 0] < 105)].sum() > 2000  # a frame of grey 100


def diagonal_cell(seen: np.ndarray, ground: np.ndarray, blue: tuple[int, int, int], share: float) -> np.ndarray:
    """[y, x] in the middle of what has the colour of this share of right predictions."""
    strength = 0.1 + 0.9 * share
    colour = np.array(blue) * strength + ground * (1 - strength)
    places = np.argwhere(np.abs(seen - colour).max(-1) <= 2)
    assert len(places) > 300, f"nothing has the colour {colour.round()}"
    assert np.ptp(places, axis=0).max() < 60, "it is one cell, not several things"
    return (places.min(0) + places.max(0)) / 2
