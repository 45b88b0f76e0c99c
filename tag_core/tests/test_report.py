"""The report and the pictures of a run, read back with other tools than those that wrote them."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tag_core.errors import RunFolderError
from tag_core.records import Record
from tag_core.report import draw_records, write_report
from tag_core.report.charts import MAX_POINTS, charts, thinned, ticks, value_text

SCRIPT = "<script>alert(1)</script>"


def write_clip(path: Path, frames: np.ndarray, rate: int = 10) -> str:
    """Frames [T, H, W, 3] without loss; returns the path as text."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=rate, options={"crf": "0"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "rgb24"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())
    return str(path)


def plain_clip(path: Path, colour: tuple[int, int, int], count: int = 10, size: tuple[int, int] = (48, 64)) -> str:
    return write_clip(path, np.tile(np.array(colour, np.uint8), (count, *size, 1)))


def write_records(folder: Path, *records: Record) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "predictions.jsonl").write_text(
        "".join(f"{r.to_json()}\n" for r in records), encoding="utf-8", errors="backslashreplace"
    )


def write_metrics(folder: Path, classes: list[str], matrix: list[list[int]] | None, **scores: float) -> None:
    folder.mkdir(exist_ok=True)
    tables = {"confusion_matrix": matrix} if matrix else {}
    coverage = {"total": 3, "unreadable": {f"{SCRIPT}.mp4": "empty file"}, "damaged": {}}
    whole = {"scores": scores, "tables": tables, "classes": classes, "coverage": coverage}
    (folder / "metrics.json").write_text(json.dumps(whole), encoding="utf-8")


class Page(HTMLParser):
    """Text, headings, table rows and tags of a page, as a browser would find them."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.texts: list[str] = []
        self.headings: list[str] = []
        self.inside: list[str] = []
        self.feed(path.read_text("utf-8"))
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.inside.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self.inside and self.inside.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "style" in self.inside:
            return
        self.texts.append(data)
        if "td" in self.inside or "th" in self.inside:
            self.rows[-1][-1] += data.strip()
        if "h2" in self.inside:
            self.headings.append(data)

    def pictures(self) -> list[Image.Image]:
        sources = [str(a["src"]) for tag, a in self.tags if tag == "img"]
        return [Image.open(io.BytesIO(base64.b64decode(s.partition("base64,")[2]))) for s in sources]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A training of two classes: one clip right, one wrong, one gone, one unreadable."""
    folder = tmp_path / "run"
    red, blue = plain_clip(tmp_path / "red.mp4", (200, 0, 0)), plain_clip(tmp_path / "blue.mp4", (0, 0, 200))
    write_metrics(folder, ["cat", "dog"], [[3, 1], [2, 4]], val_loss=0.5, top1=0.7)
    write_records(
        folder,
        Record(source=red, labels=["cat", "dog"], scores=[0.9, 0.1], truth="cat"),
        Record(source=blue, labels=["dog", "cat"], scores=[0.8, 0.2], truth="cat"),
        Record(source=str(tmp_path / "gone.mp4"), labels=["cat"], scores=[0.7], truth="cat"),
        Record(source=f"{SCRIPT}.mp4", error="empty file"),
    )
    rows = [{"epoch": 0, "step": s, "lr": 0.1, "train_loss": 2 / s} for s in (10, 20, 30)]
    rows += [{"epoch": 0, "step": 30, "epoch_loss": 0.1, "val_loss": 0.5, "top1": 0.7}]
    (folder / "scores.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows) + '{"epoch": 1, "st')
    (folder / "recipe.toml").write_text(f'summary = "Pets {SCRIPT}"\n[task]\nname = "video/classification"\n')
    (folder / "environment.json").write_text(json.dumps({"command": ["tag-run", "a b"], "packages": {"torch": "2.9"}}))
    (folder / "plugins.json").write_text(
        json.dumps([{"kind": "task", "name": "x/y", "target": "m:C", "package": "p", "version": "1.2"}])
    )
    return folder


def test_a_report_shows_every_part_of_a_training(run: Path) -> None:
    path = write_report(run)
    page = Page(path)
    assert path == run / "report.html"
    assert page.headings == [
        *("Learning curves", "Confusion matrix", "Classes", "Best predictions", "Worst predictions", "Inputs"),
        *("Recipe", "Where it came from"),
    ]
    assert "70.0 % top-1 accuracy on the validation data" in page.text
    assert "2 of 3 inputs were read" in page.text
    assert "tag-run 'a b'" in page.text
    assert ["cat", "3", "1"] in page.rows
    assert ["dog", "2", "4"] in page.rows
    assert ["task", "x/y", "p", "1.2"] in page.rows


def test_recall_and_precision_are_those_of_the_matrix_and_the_worst_class_comes_first(run: Path) -> None:
    rows = Page(write_report(run)).rows
    start = rows.index(["Class", "Samples", "Recall", "Precision"])
    assert rows[start + 1 : start + 3] == [["dog", "6", "66.7 %", "80.0 %"], ["cat", "4", "75.0 %", "60.0 %"]]


def test_a_report_needs_no_network_and_no_script(run: Path) -> None:
    page = Page(write_report(run))
    links = [v for tag, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(str(link).startswith("data:image/jpeg;base64,") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}


def test_text_with_markup_stays_text(run: Path) -> None:
    names = [f"{SCRIPT}", '"><img src=x onerror=alert(1)>']
    write_metrics(run, names, [[1, 0], [1, 0]], **{f"{SCRIPT}": 0.5})
    write_records(run, Record(source=f"{SCRIPT}'\".mp4", labels=[names[0]], scores=[0.9], truth=names[1]))
    page = Page(write_report(run))
    assert all("onerror" not in attributes for _, attributes in page.tags)
    assert "script" not in {tag for tag, _ in page.tags}
    for shown in (f"Pets {SCRIPT}", f"{SCRIPT}.mp4", f"the truth is {names[1]}"):
        assert shown in page.text


def test_contact_sheets_show_the_frames_and_a_lost_source_its_reason(run: Path) -> None:
    page = Page(write_report(run))
    red, blue = page.pictures()
    assert np.abs(np.asarray(red)[40, 60].astype(int) - (200, 0, 0)).max() < 25
    assert np.abs(np.asarray(blue)[40, 60].astype(int) - (0, 0, 200)).max() < 25
    assert red.width > 4 * 128  # four frames of 128 pixels height in a row, two rows
    assert 2 * 128 < red.height < 2 * 128 + 20
    assert "No picture: no such file" in page.text


def test_what_a_folder_does_not_hold_is_left_out(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Page(write_report(empty)).headings == []
    clip = plain_clip(tmp_path / "a.mp4", (9, 9, 9))
    write_records(tmp_path / "predict", *(Record(source=clip, labels=["x"], scores=[s / 10]) for s in range(10)))
    page = Page(write_report(tmp_path / "predict"))
    assert page.headings == ["Surest predictions", "Least sure predictions", "Inputs"]
    assert "1 inputs predicted" in page.text
    confidences = [text.split("· ")[1].strip() for text in page.texts if text.startswith("x ·")]
    assert confidences == [f"{10 * s}.0 %" for s in (9, 8, 7, 6, 5, 4, 0, 1, 2, 3, 4, 5)]


def test_without_the_metric_the_confusion_matrix_is_counted_from_the_predictions(run: Path) -> None:
    write_metrics(run, ["cat", "dog"], None, top1=0.5)
    rows = Page(write_report(run)).rows
    assert ["cat", "2", "1"] in rows
    assert ["dog", "", ""] in rows


def test_many_classes_show_the_most_confused_pairs_instead_of_a_matrix(run: Path) -> None:
    matrix = (10 * np.eye(41, dtype=int)).tolist()
    matrix[7][9], matrix[3][2] = 30, 5
    write_metrics(run, [f"c{i}" for i in range(41)], matrix)
    page = Page(write_report(run))
    assert "Confusion matrix" not in page.headings
    start = page.rows.index(["Truth", "Taken for", "Times", "Share of the truth"])
    assert page.rows[start + 1 : start + 3] == [["c7", "c9", "30", "75.0 %"], ["c3", "c2", "5", "33.3 %"]]


def test_a_malformed_file_is_named(run: Path) -> None:
    (run / "metrics.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"metrics\.json: not JSON"):
        write_report(run)


def test_losses_share_a_chart_and_other_scores_do_not() -> None:
    rows = [
        {"epoch": 0, "step": 5, "lr": 0.1, "train_loss": 2.0},
        {"epoch": 0, "step": 10, "val_loss": 0.5, "epoch_loss": 3.0, "top1": 0.25, "map": float("nan"), "distance": 7},
    ]
    found = {chart.title: chart for chart in charts(rows)}
    assert {title: [c.name for c in chart.curves] for title, chart in found.items()} == {
        "Loss": ["train_loss", "val_loss"],
        "Scores": ["top1"],
        "distance": ["distance"],
        "Learning rate": ["lr"],
    }
    assert list(found)[-1] == "Learning rate"
    assert found["Loss"].curves[0].points == [(240.0, 0.0)]  # half way, at the top
    assert found["Loss"].curves[1].points == [(480.0, 165.0)]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(5e-324, 0.0)
def test_ticks_are_few_round_numbers_around_the_values(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    steps = np.diff(marks)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 9
    assert steps.min() > 0


def test_long_curves_are_averaged_to_what_can_be_seen() -> None:
    short = thinned([(float(i), float(i % 2)) for i in range(4 * MAX_POINTS)])
    assert len(short) == MAX_POINTS
    assert set(short[1:2]) == {(5.5, 0.5)}
    assert thinned([(1.0, 2.0)]) == [(1.0, 2.0)]


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [("top1", 0.9375, "93.8 %"), ("val_loss", 0.51234567, "0.5123"), ("distance", 0.5, "0.5"), ("map", None, "n/a"),
     ("count", 1234567, "1,234,567"), ("mean_class_accuracy", 1.0, "100.0 %")],
)  # fmt: skip
def test_numbers_are_written_for_people(name: str, value: float | None, text: str) -> None:
    assert value_text(value, name) == text


def test_every_input_gets_a_picture_named_after_its_line(tmp_path: Path) -> None:
    clip = plain_clip(tmp_path / "a clip.mp4", (0, 160, 0))
    write_records(
        tmp_path / "out",
        Record(source=clip, labels=["x", "y"], scores=[0.9, 0.1], truth="y"),
        Record(source="no/where.mp4", error="no such file, or some very long reason " * 9),
        Record(source=str(tmp_path / "gone.mp4"), labels=["x"], scores=[0.5], damage="cut off"),
    )
    assert draw_records(tmp_path / "out") == 3
    found = {p.name: Image.open(p) for p in sorted((tmp_path / "out" / "pictures").iterdir())}
    assert list(found) == ["00001-a_clip.jpg", "00002-where.jpg", "00003-gone.jpg"]
    sheet = np.asarray(found["00001-a_clip.jpg"]).astype(int)
    assert np.abs(sheet[60, 300] - (0, 160, 0)).max() < 25
    assert sheet[260:].max() > 200  # the caption is there, light on dark
    assert np.median(sheet[260:]) < 60
    assert found["00002-where.jpg"].height > 3 * 26  # the reason in several lines


def test_boxes_and_keypoints_are_drawn_where_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "photo.png")
    record = Record(source=str(tmp_path / "photo.png"), boxes=[[20, 50, 120, 90], [-50, -50, 9999, 9999]])
    record.labels, record.scores, record.keypoints = ["人 \udcff\n" * 40, "dog"], [0.5, 0.25], [[[150, 80]], []]
    write_records(tmp_path / "out", record)
    assert draw_records(tmp_path / "out") == 1
    drawn = np.asarray(Image.open(tmp_path / "out" / "pictures" / "00001-photo.jpg")).astype(int)
    scale = 360 / 100  # small pictures are enlarged to be drawn upon
    for x, y in ((70, 90), (20, 70), (120, 70), (150, 80)):
        assert drawn[round(y * scale), round(x * scale)].max() > 150, (x, y)
    assert drawn[round(70 * scale), round(70 * scale)].max() < 40


def test_records_of_single_frames_become_a_video_of_these_frames_at_their_times(tmp_path: Path) -> None:
    frames = np.zeros((40, 50, 37, 3), np.uint8)
    frames[:] = (6 * np.arange(40, dtype=np.uint8))[:, None, None, None]
    source = write_clip(tmp_path / "walk.mkv", frames, rate=10)
    wanted = list(range(0, 40, 2))
    records = [Record(source=source, frame=i, boxes=[[5, 30, 20, 45]], track=[3], labels=["dog"]) for i in wanted]
    write_records(tmp_path / "out", *records, Record(source=source, frame=99, boxes=[]))
    assert draw_records(tmp_path / "out") == 1
    with av.open(str(tmp_path / "out" / "pictures" / "00001-walk.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        shown = [(float(f.time), f.to_ndarray(format="rgb24").astype(int)) for f in container.decode(stream)]
    assert [time - shown[0][0] for time, _ in shown] == pytest.approx([i / 10 for i in wanted], abs=1e-3)
    scale = 360 / 37
    for (_, picture), i in zip(shown, wanted, strict=True):
        assert np.abs(picture[round(47.5 * scale), round(30 * scale)] - 6 * i).max() < 12  # the frame
        assert np.ptp(picture[round(45 * scale) - 1, round(12 * scale)]) > 60  # the coloured edge of the box


def test_a_video_that_is_gone_or_has_none_of_the_frames_becomes_a_card(tmp_path: Path) -> None:
    short = plain_clip(tmp_path / "short.mp4", (1, 2, 3), count=2)
    gone = str(tmp_path / "gone.mp4")
    write_records(tmp_path / "out", *(Record(source=s, frame=i, boxes=[]) for s in (gone, short) for i in (7, 8)))
    assert draw_records(tmp_path / "out") == 2
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == ["00001-gone.jpg", "00003-short.jpg"]


@pytest.mark.parametrize("size", [(2, 2), (17, 31), (2, 3000), (600, 4)])
def test_pictures_of_odd_sizes_stay_within_bounds(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = plain_clip(tmp_path / "odd.mkv", (50, 60, 70), count=3, size=size)
    write_records(tmp_path / "out", Record(source=clip, labels=["a"], scores=[1.0]), Record(source=clip, frame=1))
    assert draw_records(tmp_path / "out") == 2
    for path in (tmp_path / "out" / "pictures").iterdir():
        assert max(Image.open(path).size) < 4 * 2100


def test_a_folder_of_frames_is_shown_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(12):
        Image.new("RGB", (64, 48), (20 * i, 0, 0)).save(tmp_path / "frames" / f"img_{i}.png")
    write_records(tmp_path / "out", Record(source=str(tmp_path / "frames"), labels=["a"], scores=[1.0]))
    assert draw_records(tmp_path / "out") == 1
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    red = np.asarray(Image.open(path)).astype(int)[..., 0]
    cells = [red[64 + 132 * row, 85 + 175 * column] for row in (0, 1) for column in range(4)]
    assert np.abs(np.array(cells) - 20 * np.array([0, 2, 3, 5, 6, 8, 9, 11])).max() < 8
    assert not draw_records(tmp_path)
