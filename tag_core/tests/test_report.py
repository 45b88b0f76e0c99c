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

from tag_core.errors import UnreadableInput
from tag_core.records import Record
from tag_core.report import draw_records, write_report
from tag_core.report.charts import MAX_POINTS, charts, ticks
from tag_core.report.pictures import look

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
    whole = {"scores": scores, "tables": tables, "classes": classes}
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
    assert "val loss 0.5000 top1 0.7000" in page.text
    assert "read 3 of 4 inputs; 1 unreadable (empty file)" in page.text
    assert "tag-run 'a b'" in page.text
    assert ["cat", "3", "1"] in page.rows
    assert ["dog", "2", "4"] in page.rows
    assert ["task", "x/y", "p", "1.2"] in page.rows


def test_recall_and_precision_are_those_of_the_matrix_and_the_worst_class_comes_first(run: Path) -> None:
    rows = Page(write_report(run)).rows
    start = rows.index(["Class", "Samples", "Recall", "Precision", "Most often mistaken for"])
    assert rows[start + 1] == ["dog", "6", "66.7 %", "80.0 %", "cat (2)"]
    assert rows[start + 2] == ["cat", "4", "75.0 %", "60.0 %", "dog (1)"]


def test_a_report_needs_no_network_and_no_script(run: Path) -> None:
    page = Page(write_report(run))
    links = [v for tag, a in page.tags for k, v in a.items() if k in ("src", "href", "srcset", "action", "data")]
    assert links
    assert all(str(link).startswith("data:image/jpeg;base64,") for link in links)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}


def test_text_with_markup_stays_text(run: Path) -> None:
    names = [f"{SCRIPT}", '"><img src=x onerror=alert(1)>']
    write_metrics(run, names, [[1, 0], [1, 0]], **{f"{SCRIPT}": 0.5})
    write_records(
        run,
        Record(source=f"{SCRIPT}'\".mp4", labels=[names[0]], scores=[0.9], truth=names[1]),
        Record(source=f"{SCRIPT}.mp4", error="empty file"),
    )
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
    assert red.size == (4 * 224 + 3 * 4, 2 * 168 + 4)  # two rows of four frames, 4 pixels between them
    assert "No picture: no such file" in page.text


def test_what_a_folder_does_not_hold_is_left_out(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert Page(write_report(empty)).headings == []
    clip = plain_clip(tmp_path / "a.mp4", (9, 9, 9))
    write_records(tmp_path / "predict", *(Record(source=clip, labels=["x"], scores=[s / 10]) for s in range(10)))
    page = Page(write_report(tmp_path / "predict"))
    assert page.headings == ["Best predictions", "Worst predictions", "Inputs"]
    assert "read 1 of 1 inputs" in page.text
    confidences = [text.split("· ")[1].strip() for text in page.texts if text.startswith("x ·")]
    assert confidences == [f"{10 * s}.0 %" for s in (9, 8, 7, 6, 5, 4, 0, 1, 2, 3)]


def test_many_classes_have_a_table_but_no_matrix(run: Path) -> None:
    matrix = (10 * np.eye(41, dtype=int)).tolist()
    matrix[7][9], matrix[3][2] = 30, 5
    write_metrics(run, [f"c{i}" for i in range(41)], matrix)
    page = Page(write_report(run))
    assert "Confusion matrix" not in page.headings
    assert ["c7", "40", "25.0 %", "100.0 %", "c9 (30)"] in page.rows


def test_losses_share_a_chart_and_other_scores_do_not() -> None:
    rows = [
        {"epoch": 0, "step": 5, "lr": 0.1, "train_loss": 2.0},
        {"epoch": 0, "step": 10, "val_loss": 0.5, "top1": 0.25, "map": None},
    ]
    found = {chart.title: chart for chart in charts(rows)}
    assert {title: [c.name for c in chart.curves] for title, chart in found.items()} == {
        "loss": ["train_loss", "val_loss"],
        "lr": ["lr"],
        "top1": ["top1"],
    }
    assert found["loss"].curves[0].points == [(240.0, 0.0)]  # half way, at the top
    assert found["loss"].curves[1].points == [(480.0, 220.0)]
    assert [text for _, text in found["loss"].y_ticks] == ["0.5", "1", "1.5", "2"]


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
@example(5e-324, 0.0)
def test_ticks_are_few_round_numbers_around_the_values(low: float, span: float) -> None:
    high = low + span
    marks = ticks(low, high)
    steps = np.diff(marks)
    slack = 1e-6 * max(abs(low), abs(high), span)
    assert marks[0] <= low + slack
    assert marks[-1] >= high - slack
    assert 2 <= len(marks) <= 8
    assert steps.min() > 0


def test_long_curves_are_thinned_to_what_can_be_seen() -> None:
    (chart,) = charts({"step": i, "loss": 1 / i} for i in range(1, 4 * MAX_POINTS))
    assert len(chart.curves[0].points) == MAX_POINTS
    assert chart.curves[0].last == 1 / (4 * MAX_POINTS - 1)


def test_every_input_that_can_be_read_gets_a_picture_named_after_its_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = plain_clip(tmp_path / "a clip.mp4", (0, 160, 0))
    write_records(
        tmp_path / "out",
        Record(source="no/where.mp4", error="no such file"),
        Record(source=clip, labels=["x", "y"], scores=[0.9, 0.1], truth="y"),
        Record(source=str(tmp_path / "gone.mp4"), labels=["x"], scores=[0.5]),
    )
    draw_records(tmp_path / "out")
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    assert path.name == "00002-a_clip.jpg"
    sheet = np.asarray(Image.open(path)).astype(int)
    assert np.abs(sheet[60, 300] - (0, 160, 0)).max() < 25
    assert sheet[340:].max() > 200  # the caption is there, light on dark
    assert np.median(sheet[340:]) < 80
    assert f"no picture of {tmp_path / 'gone.mp4'}" in caplog.text


def test_boxes_and_keypoints_are_drawn_where_they_are(tmp_path: Path) -> None:
    Image.new("RGB", (200, 100)).save(tmp_path / "photo.png")
    record = Record(source=str(tmp_path / "photo.png"), boxes=[[20, 50, 120, 90], [-50, -50, 9999, 9999]])
    record.labels, record.scores, record.keypoints = ["人 \udcff\n" * 40, "dog"], [0.5, 0.25], [[[150, 80]], []]
    write_records(tmp_path / "out", record)
    draw_records(tmp_path / "out")
    drawn = np.asarray(Image.open(tmp_path / "out" / "pictures" / "00001-photo.jpg")).astype(int)
    scale = 960 / 200  # small pictures are enlarged to be drawn upon
    for x, y in ((70, 90), (20, 70), (120, 70), (150, 80)):
        assert drawn[round(y * scale), round(x * scale)].max() > 150, (x, y)
    assert drawn[round(70 * scale), round(70 * scale)].max() < 40


def test_the_second_sample_of_a_file_shows_the_file(tmp_path: Path) -> None:
    (tmp_path / "frames#2").mkdir()
    for name, colour in (("a.png", "red"), ("frames#2/0.png", "blue")):
        Image.new("RGB", (40, 40), colour).save(tmp_path / name)
    seen = [look(Record(source=str(tmp_path / name), boxes=[])).getpixel((20, 30)) for name in ("a.png#2", "frames#2")]
    assert seen == [(255, 0, 0), (0, 0, 255)]
    with pytest.raises(UnreadableInput, match=r"c\.png: No such file"):
        look(Record(source=str(tmp_path / "c.png#2"), boxes=[]))


def test_a_record_of_a_frame_shows_this_frame(tmp_path: Path) -> None:
    source = counting_clip(tmp_path / "walk.mkv")
    write_records(tmp_path / "out", Record(source=source, frame=30, boxes=[[5, 30, 20, 45]], labels=["dog"]))
    draw_records(tmp_path / "out")
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    assert path.name == "00001-walk.jpg"
    assert_shows(np.asarray(Image.open(path)).astype(int), 30)


def test_records_of_several_frames_become_a_video_of_these_frames_at_their_times(tmp_path: Path) -> None:
    source, wanted = counting_clip(tmp_path / "walk.mkv"), list(range(0, 40, 2))
    records = [Record(source=source, frame=i, boxes=[[5, 30, 20, 45]], track=[3], labels=["dog"]) for i in wanted]
    write_records(tmp_path / "out", *records, Record(source=source, frame=99, boxes=[]))
    draw_records(tmp_path / "out")
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    assert path.name == "00001-walk.mp4"
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        shown = [(float(f.time), f.to_ndarray(format="rgb24").astype(int)) for f in container.decode(stream)]
    assert [time - shown[0][0] for time, _ in shown] == pytest.approx([i / 10 for i in wanted], abs=1e-3)
    for (_, picture), i in zip(shown, wanted, strict=True):
        assert_shows(picture, i)


def test_a_video_that_is_gone_or_has_none_of_the_frames_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    short, gone = plain_clip(tmp_path / "short.mp4", (1, 2, 3), count=2), str(tmp_path / "gone.mp4")
    write_records(tmp_path / "out", *(Record(source=s, frame=i, boxes=[]) for s in (gone, short) for i in (7, 8)))
    draw_records(tmp_path / "out")
    assert not list((tmp_path / "out" / "pictures").iterdir())
    assert f"no picture of {short}: it has only 2 frames" in caplog.text
    assert f"no picture of {gone}: no such file" in caplog.text


def counting_clip(path: Path) -> str:
    """A video whose frame i has the grey value 6 i."""
    frames = np.zeros((40, 50, 37, 3), np.uint8)
    frames[:] = (6 * np.arange(40, dtype=np.uint8))[:, None, None, None]
    return write_clip(path, frames, rate=10)


def assert_shows(picture: np.ndarray, frame: int) -> None:
    scale = 960 / 50
    assert np.abs(picture[round(47.5 * scale), round(30 * scale)] - 6 * frame).max() < 12  # the frame
    assert np.ptp(picture[round(45 * scale) - 1, round(12 * scale)]) > 60  # the coloured edge of the box


@pytest.mark.parametrize("size", [(2, 2), (17, 31), (2, 3000), (600, 4)])
def test_pictures_of_odd_sizes_stay_within_bounds(tmp_path: Path, size: tuple[int, int]) -> None:
    clip = plain_clip(tmp_path / "odd.mkv", (50, 60, 70), count=3, size=size)
    write_records(tmp_path / "out", Record(source=clip, labels=["a"], scores=[1.0]), Record(source=clip, frame=1))
    draw_records(tmp_path / "out")
    pictures = list((tmp_path / "out" / "pictures").iterdir())
    assert len(pictures) == 2
    for path in pictures:
        assert max(Image.open(path).size) < 4 * 2100


def test_a_folder_of_frames_is_shown_in_the_order_of_its_numbers(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for i in range(12):
        Image.new("RGB", (64, 48), (20 * i, 0, 0)).save(tmp_path / "frames" / f"img_{i}.png")
    write_records(tmp_path / "out", Record(source=str(tmp_path / "frames"), labels=["a"], scores=[1.0]))
    draw_records(tmp_path / "out")
    (path,) = (tmp_path / "out" / "pictures").iterdir()
    red = np.asarray(Image.open(path)).astype(int)[..., 0]
    cells = [red[84 + 172 * row, 112 + 228 * column] for row in (0, 1) for column in range(4)]
    assert np.abs(np.array(cells) - 20 * np.array([0, 2, 3, 5, 6, 8, 9, 11])).max() < 8


def test_a_diverged_run_has_a_report_too(tmp_path: Path) -> None:
    nan = float("nan")
    clip = plain_clip(tmp_path / "a.mp4", (9, 9, 9))
    write_records(tmp_path / "run", Record(source=clip, labels=["x"], scores=[nan], truth="y"))
    (tmp_path / "run" / "metrics.json").write_text('{"scores": {"val_loss": null}}')
    (tmp_path / "run" / "scores.jsonl").write_text('{"epoch": 0, "step": 1, "train_loss": null}\n')
    page = Page(write_report(tmp_path / "run"))
    assert "val loss n/a" in page.text
    assert "x · n/a" in page.text
