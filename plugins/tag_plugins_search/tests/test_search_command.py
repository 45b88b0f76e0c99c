"""``tag-run search`` from clips to answers, and what it says when something is wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest
import torch
from search_data import own_environment, write_pictures, write_records

from tag_core.api import predict_to_folder
from tag_core.cli.main import main
from tag_core.config import resolve
from tag_core.engine.predict import fingerprint
from tag_core.records import Record, read_records
from tag_plugins_video.motion import make_motion_data


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Motion clips, and a network for them that was never trained."""
    folder = tmp_path_factory.mktemp("search")
    list(make_motion_data(str(folder / "clips"), {"train": 24, "val": 8, "test": 8}, 0))
    for name, seed in (("net.pt", 0), ("other.pt", 1)):
        torch.manual_seed(seed)
        task = resolve("video/motion", needs=()).task.build(classes=[str(i) for i in range(8)])
        torch.save(task.state_dict(), folder / name)
    return folder


@pytest.fixture(scope="module")
def index(clips: Path) -> Path:
    """Of the clips' embeddings; in the current directory of nobody."""
    recipe = ("video/motion", str(clips / "clips" / "train"), [f"weights={clips / 'net.pt'}", *FAST])
    predict_to_folder(*recipe, out=clips / "embeddings")
    assert run("build", "--embeddings", clips / "embeddings", "--labels", "folder", clips / "index") == 0
    return clips / "index"


FAST = ["output=embedding", "eval.workers=0"]


def run(*arguments: object) -> int:
    return main(["search", *map(str, arguments)])


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def answers(text: str) -> list[Record]:
    return [Record.from_dict(json.loads(line)) for line in text.splitlines()]


def compressed(source: Path, target: Path) -> None:
    """The same clip in another container, and coarser."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        frames = list(old.decode(video=0))
        stream = new.add_stream("libx264", rate=old.streams.video[0].average_rate, options={"crf": "30"})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, "yuv420p"
        for frame in frames:
            new.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"), "rgb24")))
        new.mux(stream.encode())


def test_from_clips_to_answers(clips: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    originals = sorted((clips / "clips" / "train").rglob("*.mp4"))[::5]
    for number, clip in enumerate(originals):
        compressed(clip, tmp_path / f"{number}.mkv")
    capsys.readouterr()
    queries = [tmp_path / f"{number}.mkv" for number in range(len(originals))]
    assert run("query", index, "eval.workers=0", *queries, "--k", "3", "--html", tmp_path / "page.html") == 0
    found = answers(capsys.readouterr().out)
    assert [record.source for record in found] == [str(query) for query in queries]
    for record, original in zip(found, originals, strict=True):
        near = record.extra["neighbours"]
        assert len(near) == 3
        assert near[0]["source"] == str(original)
        assert near[0]["label"] == original.parent.name
        assert near[0]["distance"] < near[1]["distance"] <= near[2]["distance"]
    assert (tmp_path / "page.html").read_text().count("data:image/jpeg") == 4 * len(queries)


def test_a_query_by_records_gives_what_a_query_by_files_gives(
    clips: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test = clips / "clips" / "test"
    predict_to_folder("video/motion", str(test), [f"weights={clips / 'net.pt'}", *FAST], out="queries")
    capsys.readouterr()
    assert run("query", index, "queries") == 0
    by_records = capsys.readouterr().out
    assert run("query", index, "eval.workers=0", test) == 0
    assert capsys.readouterr().out == by_records
    assert run("eval", index, "queries", "--labels", "folder", "--json") == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["queries"] == scores["labelled"] == 8
    assert scores["exact@10"] == 1
    assert 0 < scores["mAP"] <= 1


def test_another_model_s_queries_are_refused(
    clips: Path, index: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = next((clips / "clips" / "test").rglob("*.mp4"))
    predict_to_folder("video/motion", str(clip), [f"weights={clips / 'other.pt'}", *FAST], out="other")
    capsys.readouterr()
    for command in (("query", index, "other"), ("eval", index, "other"), ("add", "--embeddings", "other", index)):
        assert run(*command) == 2
        assert "made by another recipe or other weights" in capsys.readouterr().err
    weights, segments = f"weights={clips / 'other.pt'}", "data.test.num_segments=4"
    for overrides, why in (
        ([weights], f"{weights} holds other weights (or another version of Tag made the index): give"),
        ([segments], f"its options are changed by {segments}: leave that out"),
        ([f"weights={clips / 'net.pt'}", segments], f"its options are changed by {segments}: leave that out"),
    ):
        assert run("query", index, "eval.workers=0", *overrides, clip) == 2
        told = capsys.readouterr()
        assert f"another model than the index's: {why}" in told.err
        assert told.out == ""
    shutil.copy(clips / "net.pt", "kept.pt")
    shutil.copy(clips / "other.pt", clips / "net.pt")
    try:
        assert run("query", index, "eval.workers=0", clip) == 2
        assert "another model than the index's: its weights file now holds other weights (" in capsys.readouterr().err
    finally:
        shutil.copy("kept.pt", clips / "net.pt")


def test_weights_that_moved_are_asked_for(clips: Path, index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = next((clips / "clips" / "test").rglob("*.mp4"))
    shutil.move(clips / "net.pt", clips / "moved.pt")
    try:
        assert run("query", index, clip) == 2
        assert "weights=FILE" in capsys.readouterr().err
        assert run("query", index, f"weights={clips / 'moved.pt'}", "eval.workers=0", clip) == 0
        assert len(answers(capsys.readouterr().out)[0].extra["neighbours"]) == 10
    finally:
        shutil.move(clips / "moved.pt", clips / "net.pt")


def test_an_unreadable_query_is_a_record_with_its_reason(index: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("query", index, "eval.workers=0", "missing.mp4") == 3
    (record,) = answers(capsys.readouterr().out)
    assert record.error is not None
    assert "neighbours" not in record.extra


def test_an_index_is_shown_added_to_and_removed_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = write_pictures(tmp_path / "pictures", 4)
    write_records(tmp_path / "first", [*records[:8], Record(source="bad.png", error="empty file")], "one")
    write_records(tmp_path / "second", records[8:], "one")
    write_records(tmp_path / "third", records[:1], "two")
    assert run("build", "--embeddings", "first", "--index", "search/hnsw", "m=8", "index", "--json") == 3
    told = capsys.readouterr()
    made = json.loads(told.out)
    assert made["entries"] == 8
    assert made["options"]["m"] == 8
    assert made["unreadable"] == {"bad.png": "empty file"}
    assert "left out, for it has no embedding: bad.png: empty file" in told.err
    assert run("add", "--embeddings", "second", "index", "--json") == 0
    assert json.loads(capsys.readouterr().out)["added"] == 4
    assert run("remove", "index", records[0].source, records[9].source) == 0
    assert run("compact", "index") == 0
    assert run("verify", "index") == 0
    capsys.readouterr()
    assert run("show", "index", "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entries"], shown["removed"], shown["fingerprint"]) == (10, 0, "one")
    for command, reason in (
        (("add", "--embeddings", "second", "index"), "the id is there twice"),
        (("add", "--embeddings", "third", "index"), "made by another recipe"),
        (("build", "--embeddings", "first", "index"), "holds an index already"),
        (("build", "--embeddings", "first", "--embeddings", "third", "new"), "embeddings of different models"),
        (("build", "--embeddings", "first", "--index", "search/hsnw", "new"), "did you mean"),
        (("build", "--embeddings", "first", "--index", "search/hnsw", "mm=8", "new"), "no such option"),
        (("build", "--embeddings", "first", "m=8", "new"), "name it with --index"),
        (("build", "--embeddings", "first"), "name one OUT"),
        (("build", "--embeddings", "nothing", "new"), "no records there"),
        (("remove", "index", "nothing.png"), "no entry or source"),
        (("query", "nothing", "a.jpg"), "no index there"),
        (("query", "index", "first", "a.jpg"), "not both at once"),
        (("query", "index", "m=8"), "name at least one QUERY"),
    ):
        assert run(*command) == 2, command
        assert reason in capsys.readouterr().err, command
    assert not Path("new").exists()
    data = next(Path("index").glob("payload-*"))
    data.write_bytes(data.read_bytes()[:-2] + b" \n")
    assert run("verify", "index") == 1
    assert "payload" in capsys.readouterr().err


def test_scores_tell_what_could_not_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = write_pictures(tmp_path / "pictures", 2)
    bad = [Record(source=f"{name}.png", error="empty file") for name in "ab"]
    write_records(tmp_path / "good", records)
    write_records(tmp_path / "some", [*records[:2], *bad])
    write_records(tmp_path / "none", bad)
    write_records(tmp_path / "empty", [])
    assert run("build", "--embeddings", "good", "--labels", "folder", "index") == 0
    assert run("eval", "index", "good", "--labels", "folder") == 0
    capsys.readouterr()
    assert run("eval", "index", "some", "--labels", "folder", "--json") == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["queries"] == 2
    assert "2 queries could not be answered: a.png: empty file, and 1 more" in told.err
    for folder, reason in (
        ("none", "none: nothing to score: none of the queries could be answered: a.png: empty file, and 1 more"),
        ("empty", "empty: nothing to score: there is no query"),
    ):
        assert run("eval", "index", folder, "--json") == 2
        told = capsys.readouterr()
        assert reason in told.err
        assert told.out == ""


def test_a_query_whose_embedding_cannot_be_compared_is_a_record_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = write_pictures(tmp_path / "pictures", 2)
    bad = [Record(source="zero.png", embedding=[0.0] * 3), Record(source="nan.png", embedding=[1.0, float("nan"), 1.0])]
    write_records(tmp_path / "good", records)
    write_records(tmp_path / "some", [records[0], *bad, records[1]])
    write_records(tmp_path / "none", bad)
    assert run("build", "--embeddings", "good", "--labels", "folder", "index") == 0
    capsys.readouterr()
    assert run("query", "index", "some") == 3
    told = capsys.readouterr()
    found = answers(told.out)
    assert [record.source for record in found] == [records[0].source, "zero.png", "nan.png", records[1].source]
    assert ["neighbours" in record.extra for record in found] == [True, False, False, True]
    assert "all zeros" in str(found[1].error)
    assert "not finite" in str(found[2].error)
    assert "2 queries could not be answered: zero.png: its embedding is all zeros" in told.err
    assert "metric" not in told.err  # which is the index's, and not to be chosen now
    assert run("eval", "index", "some", "--labels", "folder", "--json") == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["queries"] == 2
    assert "2 queries could not be answered: zero.png" in told.err
    assert run("eval", "index", "none") == 2
    assert "none of the queries could be answered: zero.png" in capsys.readouterr().err


def test_a_page_overwrites_no_picture_and_tells_those_that_it_cannot_show(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = write_pictures(tmp_path / "pictures", 1)
    write_records(tmp_path / "good", records)
    assert run("build", "--embeddings", "good", "index") == 0
    before = Path(records[0].source).read_bytes()
    capsys.readouterr()
    assert run("query", "index", "--html", *(record.source for record in records)) == 2
    told = capsys.readouterr()
    assert f"{records[0].source}: is there already, and is no page" in told.err
    assert told.out == ""
    assert Path(records[0].source).read_bytes() == before
    Path(records[0].source).unlink()
    for _ in range(2):
        assert run("query", "index", "good", "--html", "page.html") == 0
        assert "\n4 pictures could not be shown; the page says why" in capsys.readouterr().err
    assert f"No picture: {records[0].source}: No such file" in Path("page.html").read_text()


def test_a_reader_that_leaves_early_still_gets_its_page(tmp_path: Path) -> None:
    write_records(tmp_path / "good", write_pictures(tmp_path / "pictures", 40))
    assert run("build", "--embeddings", "good", "index") == 0
    for page in (["--html", "page.html"], []):
        command = [sys.executable, "-m", "tag_core.cli.main", "search", "query", "index", "good", "--k", "100", *page]
        started = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own_environment()
        )
        assert started.stdout is not None
        assert started.stderr is not None
        Record.from_dict(json.loads(started.stdout.readline()))
        started.stdout.close()
        assert started.stderr.read() == "".join(f"{line}\n" for line in page[1:])
        assert started.wait() == 1
    assert "120 queries, the first 100 are shown" in " ".join(Path("page.html").read_text().split())


def test_records_without_a_model_still_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = write_pictures(tmp_path / "pictures", 2)
    write_records(tmp_path / "plain", records)
    assert run("build", "--embeddings", "plain/predictions.jsonl", "--labels", "folder", "index") == 0
    assert "no model.json beside the records" in capsys.readouterr().err
    assert run("query", "index", "plain", "--k", "2", "--labels", "folder") == 0
    for record in answers(capsys.readouterr().out):
        assert [near["label"] for near in record.extra["neighbours"]] == [record.truth] * 2
    assert run("query", "index", records[0].source) == 2
    assert "does not know its model" in capsys.readouterr().err


def test_the_fingerprint_is_of_the_model_and_its_preparation_and_of_no_input(clips: Path) -> None:
    def of(*overrides: str, weights: str = "net.pt") -> str:
        recipe = resolve("video/motion", [f"weights={clips / weights}", *overrides], needs=())
        task: Any = recipe.task.build(classes=[str(i) for i in range(8)])
        task.load_state_dict(torch.load(clips / weights))
        return fingerprint(recipe, task)

    same = [
        of("data.test.source=elsewhere"),
        of("eval.batch_size=3"),
        of("output=embedding"),
        of("eval.precision=bf16"),
    ]
    assert set(same) == {of()}
    others = {of(weights="other.pt"), of("data.test.num_segments=4"), of("task.mean=[0.2,0.2,0.2]")}
    assert len(others) == 3
    assert of() not in others


def test_predictions_keep_what_tells_an_entry_from_another(clips: Path) -> None:
    out = clips / "frames"
    inputs = sorted(map(str, (clips / "clips" / "test").rglob("*.mp4")))[:2]
    predict_to_folder("video/motion", inputs, [f"weights={clips / 'net.pt'}", *FAST], out=out)
    assert all(record.time == [0.0, 0.875] for record in read_records(out / "predictions.jsonl"))
    model = json.loads((out / "model.json").read_text())
    assert model["recipe"]["weights"] == str((clips / "net.pt").resolve())
    assert model["recipe"]["name"] == "video/motion"


def test_help_imports_neither_faiss_nor_torch() -> None:
    script = (
        "import sys; from tag_core.cli.main import main\n"
        "for words in (['search', '--help'], ['search', 'query', '--help'], ['list', 'index']):\n"
        "    main(words)\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=own_environment(), capture_output=True, text=True, check=True
    )
    assert "build" in done.stdout
    assert "--rerank" in done.stdout
    loaded = set(done.stdout.split("loaded")[-1].split())
    assert not loaded & {"faiss", "torch", "numpy", "psycopg", "jinja2", "PIL", "scipy"}
