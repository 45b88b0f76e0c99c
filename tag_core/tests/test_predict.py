"""Predicting over many inputs: every input once, whatever is killed, broken or odd."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from toy_plugin import write_points

import tag_core
from tag_core.errors import ConfigError, RunFolderError, UnreadableInput, UserError, WeightsError
from tag_core.records import Record, read_records

Call = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def trained(tmp_path: Path, toy_recipe: dict[str, Any]) -> Path:
    toy_recipe["train"].update(epochs=8, best="-val_loss")
    tag_core.train(toy_recipe, out=tmp_path / "run")
    return tmp_path / "run"


def test_a_run_folder_predicts_with_its_best_weights(tmp_path: Path, trained: Path) -> None:
    records = list(tag_core.predict(trained, tmp_path / "points"))
    assert [record.source for record in records] == sorted(map(str, (tmp_path / "points").iterdir()))
    right = sum(r.labels is not None and r.labels[0] == ("left", "right")[int(r.source[-5])] for r in records)
    assert right >= 30


def test_every_bad_input_becomes_a_record_with_its_reason(tmp_path: Path, trained: Path, tag_run: Call) -> None:
    odd = {0: "crash", 3: "unreadable", 5: "hang"}
    folder = write_points(tmp_path / "odd", 8, odd)
    options = ["eval.workers=2", "eval.timeout=3"]
    result = tag_run("predict", trained, *options, folder, tmp_path / "missing.txt")
    records = [Record.from_dict(json.loads(line)) for line in result.stdout.splitlines()]
    assert result.returncode == 3
    assert len(records) == 9
    errors = {Path(r.source).name: r.error for r in records if r.error}
    assert len(errors) == 4
    assert "SIGSEGV" in errors["p0000-1.txt"] if "p0000-1.txt" in errors else "SIGSEGV" in errors["p0000-0.txt"]
    assert any(reason and "no answer after 3 s" in reason for reason in errors.values())
    assert "not a point" in errors.values()
    assert "No such file" in errors["missing.txt"]
    assert "read 5 of 9 inputs" in result.stderr
    assert "4 unreadable" in result.stderr


def test_strict_stops_at_the_first_unreadable_input(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UnreadableInput, match="not a point"):
        list(tag_core.predict(trained, write_points(tmp_path / "odd", 3, {1: "unreadable"}), strict=True))


def test_a_bug_in_a_data_set_is_not_taken_for_a_bad_file(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        list(tag_core.predict(trained, write_points(tmp_path / "odd", 3, {1: "bug"}), ["eval.workers=1"]))


def test_batch_size_and_workers_change_nothing(tmp_path: Path, trained: Path) -> None:
    runs = [
        [
            r.to_json()
            for r in tag_core.predict(trained, tmp_path / "points", [f"eval.batch_size={b}", f"eval.workers={w}"])
        ]
        for b, w in ((40, 0), (40, 2))
    ]
    assert runs[0] == runs[1]


def test_twenty_kills_leave_every_input_exactly_once(tmp_path: Path, trained: Path) -> None:
    folder, out = write_points(tmp_path / "many", 600), tmp_path / "out"
    command = [sys.executable, "-m", "tag_core.cli.main", "predict", str(trained), str(folder), "--out", str(out)]
    command += ["eval.shard_size=4", "eval.batch_size=2", "eval.workers=1"]
    instants, kills = random.Random(0), 0
    done = out / "predictions.jsonl"
    while kills < 20 and not done.exists():
        before = len(list(out.glob("predictions/part-*.jsonl")))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while process.poll() is None and len(list(out.glob("predictions/part-*.jsonl"))) == before:
            time.sleep(0.005)
        time.sleep(instants.uniform(0, 0.04))
        process.send_signal(signal.SIGKILL)
        assert process.wait() in (0, -signal.SIGKILL), process.stderr.read().decode() if process.stderr else ""
        kills += 1
    assert kills >= 10, "the prediction is too short for the number of kills"
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert [r.source for r in read_records(done)] == sorted(map(str, folder.iterdir()))
    fresh = [r.to_json() for r in tag_core.predict(trained, folder, ["eval.batch_size=2", "eval.workers=0"])]
    assert done.read_text().splitlines() == fresh


def test_a_folder_of_other_predictions_is_refused(tmp_path: Path, trained: Path, tag_run: Call) -> None:
    assert tag_run("predict", trained, tmp_path / "points", "--out", tmp_path / "out").returncode == 0
    other = write_points(tmp_path / "other", 3)
    result = tag_run("predict", trained, other, "--out", tmp_path / "out")
    assert result.returncode == 2
    assert "choose another --out" in result.stderr
    assert len(list(read_records(tmp_path / "out" / "predictions.jsonl"))) == 40


def test_the_folder_of_a_training_or_evaluation_is_not_taken_for_finished_predictions(
    tmp_path: Path, trained: Path
) -> None:
    recipe = (trained / "recipe.toml").read_text()
    with pytest.raises(RunFolderError, match="choose another --out"):
        tag_core.api.predict_to_folder(trained, tmp_path / "points", out=trained)
    assert (trained / "recipe.toml").read_text() == recipe


def test_finished_predictions_are_not_made_again(tmp_path: Path, trained: Path, tag_run: Call) -> None:
    command = ("predict", trained, tmp_path / "points", "--out", tmp_path / "out")
    assert tag_run(*command).returncode == 0
    before = os.stat(tmp_path / "out" / "predictions.jsonl").st_mtime_ns
    assert tag_run(*command).returncode == 0
    assert os.stat(tmp_path / "out" / "predictions.jsonl").st_mtime_ns == before


@pytest.mark.parametrize(("environment", "left"), [({}, 0), ({"OMP_WAIT_POLICY": "ACTIVE"}, 2)])
def test_only_threads_that_spin_while_they_wait_leave_cores_to_the_workers(
    tmp_path: Path, trained: Path, tag_run: Call, environment: dict[str, str], left: int
) -> None:
    command = ("predict", trained, "eval.workers=2", tmp_path / "points", "--out", tmp_path / "out")
    assert tag_run(*command, **environment).returncode == 0
    used = json.loads((tmp_path / "out" / "environment.json").read_text())["threads"]
    script = "import torch; print(torch.get_num_threads())"  # this process may have been told another number
    threads = int(subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout)
    assert used == max(1, threads - left)


def test_sinks_of_the_recipe_are_written(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    toy_recipe["sinks"] = ["core/csv"]
    tag_core.train(toy_recipe, out=tmp_path / "run")
    tag_core.api.predict_to_folder(tmp_path / "run", tmp_path / "points", out=tmp_path / "out")
    assert (tmp_path / "out" / "predictions.csv").read_text().count("\n") == 41


def test_predicting_without_weights_says_where_to_get_them(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    with pytest.raises(WeightsError, match="weights=FILE"):
        list(tag_core.predict(toy_recipe, tmp_path / "points"))


def test_parts_of_a_task_take_weights_of_their_own(tmp_path: Path, toy_recipe: dict[str, Any], trained: Path) -> None:
    other = {**toy_recipe, "train": {**toy_recipe["train"], "seed": 1, "epochs": 1}}
    tag_core.train(other, out=tmp_path / "other")
    pair = {**toy_recipe, "task": {"name": "toy-plugin/pair", "left": other["task"], "right": toy_recipe["task"]}}
    weights = [f"weights.left={tmp_path / 'other'}", f"weights.right={trained}"]
    points = tmp_path / "points"
    for record, left, right in zip(
        tag_core.predict(pair, points, weights),
        tag_core.predict(tmp_path / "other", points),
        tag_core.predict(trained, points),
        strict=True,
    ):
        one, two, both = (dict(zip(r.labels or [], r.scores or [], strict=True)) for r in (left, right, record))
        assert both == pytest.approx({name: (one[name] + two[name]) / 2 for name in one})
        assert one != pytest.approx(two)
    pair["weights"] = {"left": str(trained), "right": str(trained)}
    assert len(list(tag_core.predict(pair, points))) == 40
    for wrong, told in (
        ("weights.left=", r"add weights\.left=FILE \("),
        ("weights.up=a.pt", r"weights\.up: toy-plugin/pair has no such part"),
        ("weights=a.pt", r"weights a\.pt: no such file"),
    ):
        with pytest.raises(UserError, match=told):
            list(tag_core.predict(pair, points, [wrong]))


def test_training_starts_each_part_from_its_weights(tmp_path: Path, toy_recipe: dict[str, Any], trained: Path) -> None:
    task = {"name": "toy-plugin/pair", "left": toy_recipe["task"], "right": toy_recipe["task"]}
    toy_recipe |= {"task": task, "weights": {"right": str(trained)}, "schedule": {"name": "core/constant"}}
    toy_recipe["optimizer"]["lr"], toy_recipe["train"]["best"] = 0.0, "top1"
    tag_core.train(toy_recipe, out=tmp_path / "pair")
    states = [torch.load(run / "checkpoints" / "best.pt")["model"] for run in (trained, tmp_path / "pair")]
    for key, value in states[0].items():
        assert torch.equal(states[1][f"right.{key}"], value)
    assert not torch.equal(states[1]["left.head.weight"], states[0]["head.weight"])


def test_a_recipe_without_test_data_cannot_predict(tmp_path: Path, toy_recipe: dict[str, Any], trained: Path) -> None:
    del toy_recipe["data"]
    weights = str(trained / "checkpoints" / "best.pt")
    with pytest.raises(ConfigError, match=r"data\.test"):
        list(tag_core.predict({**toy_recipe, "weights": weights}, tmp_path / "points"))


def test_no_input_is_a_usage_error(tmp_path: Path, trained: Path, tag_run: Call) -> None:
    result = tag_run("predict", trained, "eval.workers=0")
    assert result.returncode == 2
    assert "at least one INPUT" in result.stderr


def test_a_recipe_file_may_predict_too(
    tmp_path: Path, toy_recipe: dict[str, Any], trained: Path, tag_run: Call
) -> None:
    (tmp_path / "r.toml").write_text(tomli_w.dumps(toy_recipe))
    result = tag_run("predict", tmp_path / "r.toml", f"weights={trained}/checkpoints/last.pt", tmp_path / "points")
    assert result.returncode == 0, result.stderr
    assert len(result.stdout.splitlines()) == 40


def test_scores_that_are_not_numbers_stay_valid_json() -> None:
    line = Record(source="a", scores=[float("nan"), 0.5], extra={"x": [float("inf")]}).to_json()
    assert json.loads(line) == {"source": "a", "scores": [None, 0.5], "extra": {"x": [None]}, "version": 1}


def test_records_round_trip_and_bad_lines_are_named(tmp_path: Path) -> None:
    record = Record(source="ü.mp4", time=[0.0, 1.5], labels=["a"], scores=[0.5], extra={"k": 1})
    path = tmp_path / "r.jsonl"
    path.write_text(f"{record.to_json()}\n")
    assert list(read_records(path)) == [record]
    for bad in ("{", '{"source": 3}', '{"source": "a", "sauce": 1}', '{"source": "a", "version": 2}', "[]"):
        path.write_text(f"{record.to_json()}\n{bad}\n")
        with pytest.raises(tag_core.errors.UserError, match="line 2"):
            list(read_records(path))


def test_a_file_in_place_of_the_output_folder_is_refused(tmp_path: Path, trained: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError):
        tag_core.api.predict_to_folder(trained, tmp_path / "points", out=tmp_path / "file" / "out")


def test_strict_prediction_to_a_folder_stops_and_goes_on_without_strict(
    tmp_path: Path, trained: Path, tag_run: Call
) -> None:
    folder = write_points(tmp_path / "odd", 9, {5: "unreadable"})
    command = ("predict", trained, "eval.shard_size=2", "eval.workers=0", folder, "--out", tmp_path / "out")
    result = tag_run(*command, "--strict")
    assert result.returncode == 3
    assert "not a point" in result.stderr
    assert not (tmp_path / "out" / "predictions.jsonl").exists()
    assert tag_run(*command).returncode == 3
    assert len(list(read_records(tmp_path / "out" / "predictions.jsonl"))) == 9


def test_embeddings_come_in_place_of_labels(tmp_path: Path, trained: Path) -> None:
    points, state = tmp_path / "points", torch.load(trained / "checkpoints" / "best.pt")["model"]
    (points / "40-1.txt").write_text("unreadable")
    records = list(tag_core.predict(trained, points, ["output=embedding"]))
    assert len(records) == 41
    assert [record.error for record in records if record.error] == ["not a point"]
    for record in (record for record in records if not record.error):
        x, y, _ = Path(record.source).read_text().split()
        weight, bias = state["backbone.layers.0.weight"], state["backbone.layers.0.bias"]
        expected = torch.tanh(weight @ torch.tensor([float(x), float(y)]) + bias)
        assert record.embedding == pytest.approx(expected.tolist(), abs=1e-6)
        assert set(record.to_dict()) == {"source", "embedding", "version"}


def test_embeddings_need_no_weights_of_the_classifier(
    tmp_path: Path, toy_recipe: dict[str, Any], trained: Path, caplog: pytest.LogCaptureFixture
) -> None:
    state = torch.load(trained / "checkpoints" / "best.pt")["model"]
    bare = {key.removeprefix("backbone."): value for key, value in state.items() if key.startswith("backbone.")}
    many = {**state, "head.weight": torch.zeros(7, 8), "head.bias": torch.zeros(7)}
    whole = list(tag_core.predict(trained, tmp_path / "points", ["output=embedding"]))
    for other in (bare, {f"backbone.{key}": value for key, value in bare.items()}, many):
        torch.save(other, tmp_path / "weights.pt")
        toy_recipe |= {"weights": str(tmp_path / "weights.pt"), "output": "embedding"}
        with caplog.at_level("INFO", "tag"):
            assert list(tag_core.predict(toy_recipe, tmp_path / "points")) == whole
    assert "2 missing: head.weight, head.bias" in caplog.text
    torch.save(bare, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"missing: head\.weight"):
        list(tag_core.predict({**toy_recipe, "output": ""}, tmp_path / "points"))
    torch.save({"backbone.layers.0.weight": bare["layers.0.weight"]}, tmp_path / "weights.pt")
    with pytest.raises(WeightsError, match=r"missing: backbone\.layers\.0\.bias"):
        list(tag_core.predict(toy_recipe, tmp_path / "points"))


def test_a_folder_of_labels_takes_no_embeddings_and_metrics_no_either(tmp_path: Path, trained: Path) -> None:
    points = tmp_path / "points"
    tag_core.api.predict_to_folder(trained, points, out=tmp_path / "out")
    with pytest.raises(RunFolderError, match="choose another --out"):
        tag_core.api.predict_to_folder(trained, points, ["output=embedding"], out=tmp_path / "out")
    tag_core.api.predict_to_folder(trained, points, ["output=embedding"], out=tmp_path / "embeddings")
    assert all(r.embedding for r in read_records(tmp_path / "embeddings" / "predictions.jsonl"))
    with pytest.raises(ConfigError, match="output: metrics score what the task finds"):
        tag_core.evaluate(trained, ["output=embedding"])
    with pytest.raises(ConfigError, match=r"output: expected '' or 'embedding', got 'embeding'"):
        list(tag_core.predict(trained, points, ["output=embeding"]))


def test_a_task_without_embeddings_says_what_it_gives(tmp_path: Path, toy_recipe: dict[str, Any]) -> None:
    task = {"name": "toy-plugin/pair", "left": toy_recipe["task"], "right": toy_recipe["task"]}
    tag_core.train({**toy_recipe, "task": task}, out=tmp_path / "pair")
    with pytest.raises(UserError, match=r"output=embedding: Pair gives no embedding \(.*scores.*\); leave the option"):
        list(tag_core.predict(tmp_path / "pair", tmp_path / "points", ["output=embedding"]))


def test_the_model_file_is_the_same_for_all_inputs_and_another_for_other_weights(tmp_path: Path, trained: Path) -> None:
    first, second = sorted((tmp_path / "points").iterdir())[:2]
    tag_core.api.predict_to_folder(trained, first, out=tmp_path / "first")
    tag_core.api.predict_to_folder(trained, second, ["eval.batch_size=1"], out=tmp_path / "second")
    tag_core.evaluate(trained, out=tmp_path / "scored")
    models = [json.loads((tmp_path / name / "model.json").read_text()) for name in ("first", "second", "scored")]
    assert len({model["fingerprint"] for model in models}) == 1
    assert {model["recipe"]["weights"] for model in models} == {str(trained / "checkpoints" / "best.pt")}
    again = list(tag_core.predict(models[0]["recipe"], first))
    assert again == list(read_records(tmp_path / "first" / "predictions.jsonl"))
    weights = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)
    next(value for value in weights["model"].values() if value.is_floating_point()).view(-1)[0] += 1
    torch.save(weights, tmp_path / "moved.pt")
    tag_core.api.predict_to_folder(trained, first, [f"weights={tmp_path / 'moved.pt'}"], out=tmp_path / "other")
    assert json.loads((tmp_path / "other" / "model.json").read_text())["fingerprint"] != models[0]["fingerprint"]


def test_an_evaluation_is_not_written_into_a_training_s_folder(trained: Path) -> None:
    before = (trained / "recipe.toml").read_bytes()
    with pytest.raises(RunFolderError, match="the folder of a training"):
        tag_core.evaluate(trained, out=trained)
    assert (trained / "recipe.toml").read_bytes() == before


def test_nothing_is_written_among_other_files(trained: Path, toy_recipe: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    (tmp_path / "album" / "a.jpg").touch()
    with pytest.raises(RunFolderError, match=r"holds other files, such as a\.jpg; choose another --out"):
        tag_core.api.predict_to_folder(trained, trained.parent / "points", out=tmp_path / "album")
    with pytest.raises(RunFolderError, match="holds other files"):
        tag_core.train(toy_recipe, out=tmp_path / "album")
    assert [path.name for path in (tmp_path / "album").iterdir()] == ["a.jpg"]


@pytest.mark.parametrize(("content", "why"), [(b"\xff\xd8\xff", "not UTF-8 text"), (b'{"a"', "Expecting")])
def test_what_holds_no_records_is_told(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"source": "a"}\n' + content)
    with pytest.raises(UserError, match=rf"a\.jsonl, line 2: no record as in predictions\.jsonl: {why}"):
        list(read_records(tmp_path / "a.jsonl"))
