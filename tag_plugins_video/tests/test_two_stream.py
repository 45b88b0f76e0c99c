"""Pictures and optical flow of the same videos, and the fusion of two models trained apart."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tomli_w
import torch

import tag_core
from tag_core.config import build_component
from tag_core.errors import ConfigError, UnreadableInput, UserError, WeightsError
from tag_core.records import read_records
from tag_plugins_video.motion import DIRECTIONS, make_motion_data

pytest.importorskip("cv2", reason="the extra 'flow' (OpenCV) is not installed")
STREAMS = {"rgb": "video/folder", "flow": "video/flow"}
SHORT = {"train": {"epochs": 1, "batch_size": 8, "workers": 0}, "eval": {"workers": 0, "batch_size": 8}}


def stream(channels):
    backbone = {"name": "video/c3d-tiny", "width": 4, "channels": channels}
    return {"name": "video/classification", "top_k": 8, "backbone": backbone, "loss": "core/cross-entropy"}


def recipe(task, **train):
    optimizer, metrics = {"name": "core/adamw", "lr": 0.05}, ["core/top-k"]
    tables = {"task": task, "data": {"train": train, "val": {"random": False}}, "optimizer": optimizer}
    return {**tables, **SHORT, "metrics": metrics, "distribution": "core/cpu"}


def rgb_recipe(motion):
    return recipe(stream(3), name="video/folder", source=str(motion / "clips"), random=True)


def flow_recipe(motion):
    return recipe(stream(2), name="video/flow", source=str(motion / "flow"), num_segments=7, random=True)


def fused_recipe(motion, **task):
    task = {"name": "video/two-stream", "rgb": stream(3), "flow": stream(2), "top_k": 8, **task}
    streams = {"rgb": {"name": "video/folder"}, "flow": {"name": "video/flow", "num_segments": 7}}
    sources = {"source": str(motion / "clips"), "flow_source": str(motion / "flow")}
    return recipe(task, name="video/two-stream", random=True, **sources, **streams)


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """Three clips of each direction, their flow, and a model of each trained for a few steps."""
    from tag_plugins_video.cli_flow import make_all, plan
    from tag_plugins_video.flow import FlowSettings

    folder = tmp_path_factory.mktemp("motion")
    list(make_motion_data(folder / "data", {"train": 24}))
    shutil.move(folder / "data" / "train", folder / "clips")
    jobs = plan([str(folder / "clips")], folder / "flow")
    assert all(done.count for done in make_all(jobs, FlowSettings(short_side=0), workers=1))
    tag_core.train(rgb_recipe(folder), out=folder / "rgb")
    tag_core.train(flow_recipe(folder), out=folder / "flownet")
    return folder


def weights(motion):
    return [f"weights.rgb={motion / 'rgb'}", f"weights.flow={motion / 'flownet'}"]


def scores_of(path):
    """Source within its class folder -> scores in the order of the classes."""
    found = {}
    for record in read_records(path / "predictions.jsonl"):
        by_class = dict(zip(record.labels, record.scores, strict=True))
        found["/".join(Path(record.source).parts[-2:]).removesuffix(".flow")] = [by_class[name] for name in DIRECTIONS]
    return found


def test_evaluation_averages_the_scores_that_each_stream_gets_by_itself(motion, tmp_path):
    tag_core.evaluate(motion / "rgb", ["eval.workers=0"], out=tmp_path / "rgb")
    tag_core.evaluate(motion / "flownet", ["eval.workers=0"], out=tmp_path / "flow")
    fused = fused_recipe(motion, rgb_weight=1.0, flow_weight=1.5)
    result = tag_core.evaluate(fused, weights(motion), out=tmp_path / "both")
    rgb, flow, both = (scores_of(tmp_path / name) for name in ("rgb", "flow", "both"))
    assert len(both) == 8  # a fifth, one of each direction
    assert both.keys() == rgb.keys() == flow.keys()
    hits = 0
    for source, scores in both.items():
        expected = (np.array(rgb[source]) + 1.5 * np.array(flow[source])) / 2.5
        np.testing.assert_allclose(scores, expected, atol=1e-6)
        hits += list(DIRECTIONS)[int(expected.argmax())] == source.partition("/")[0]
    assert result.scores["top1"] == hits / 8
    apart = [np.abs(np.subtract(rgb[source], flow[source])).max() for source in both]
    assert min(apart) > 1e-3


def test_prediction_takes_videos_and_finds_their_flow(motion, tmp_path):
    tables = fused_recipe(motion)
    lonely = tmp_path / "lonely" / "a.mp4"
    lonely.parent.mkdir()
    shutil.copy(next((motion / "clips" / "up").iterdir()), lonely)
    inputs = [motion / "clips" / "left", lonely]
    records = list(tag_core.predict(tables, inputs, weights(motion)))
    assert [Path(record.source).parent.name for record in records] == ["left"] * 3 + ["lonely"]
    assert all(abs(sum(record.scores) - 1) < 1e-5 for record in records[:3])
    assert records[3].error == f"no optical flow of it in {motion / 'flow'}; make it with 'tag-run flow'"


def test_both_streams_train_in_one_run_which_then_evaluates_by_itself(motion, tmp_path):
    tables = fused_recipe(motion)
    trained = tag_core.train(tables, weights(motion), out=tmp_path / "run")
    assert trained.best is not None
    assert tag_core.evaluate(tmp_path / "run", out=tmp_path / "eval").coverage.total == 8
    state = torch.load(trained.best, weights_only=True)["model"]
    assert {key.partition(".")[0] for key in state} == {"rgb", "flow"}


def test_the_loss_is_the_sum_and_the_embedding_is_of_both():
    task = build_component("task", "video/two-stream", {"rgb": stream(3), "flow": stream(2)}, classes=["a", "b"])
    batch = {"clip": torch.rand(2, 4, 3, 16, 16), "flow": torch.rand(2, 4, 2, 16, 16), "label": torch.tensor([0, 1])}
    task.eval()
    parts = [task.rgb.predict(batch), task.flow.predict({**batch, "clip": batch["flow"]})]
    both = task.predict(batch)
    torch.testing.assert_close(both["loss"], parts[0]["loss"] + parts[1]["loss"])
    torch.testing.assert_close(task(batch)["loss"], both["loss"])
    torch.testing.assert_close(both["embedding"], torch.cat([part["embedding"] for part in parts], 1))


@pytest.mark.parametrize(("rgb", "flow"), [(0.0, 0.0), (-1.0, 2.0)])
def test_weights_of_the_mean_that_are_none_are_refused(rgb, flow):
    options = {"rgb": stream(3), "flow": stream(2), "rgb_weight": rgb, "flow_weight": flow}
    with pytest.raises(ConfigError, match="rgb_weight and flow_weight"):
        build_component("task", "video/two-stream", options, classes=["a"])


def test_models_of_other_classes_are_not_fused_and_both_are_named(motion, tmp_path):
    saved = torch.load(motion / "flownet" / "checkpoints" / "best.pt", weights_only=True)
    saved["classes"][1:3] = saved["classes"][2:0:-1]
    torch.save(saved, tmp_path / "other.pt")
    overrides = [f"weights.rgb={motion / 'rgb'}", f"weights.flow={tmp_path / 'other.pt'}"]
    told = r"best.pt and .*other.pt have different classes: down-left in the one, down-right in the other"
    with pytest.raises(WeightsError, match=told):
        tag_core.evaluate(fused_recipe(motion), overrides, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ([], WeightsError, "add weights.rgb=FILE weights.flow=FILE"),
        (["weights.rgb=a.pt"], WeightsError, "add weights.flow=FILE"),
        (["weights.rbg=a.pt"], ConfigError, "weights.rbg: video/two-stream has no such part"),
    ],
)
def test_weights_that_are_missing_or_of_no_part_are_named(given, error, told, motion, tmp_path):
    with pytest.raises(error, match=told):
        tag_core.evaluate(fused_recipe(motion), given, out=tmp_path / "out")


def test_a_list_of_videos_will_do_and_a_sample_is_that_of_both_data_sets(motion, tmp_path):
    videos = sorted((motion / "clips").rglob("*.mp4"))
    (tmp_path / "list.txt").write_text("".join(f"{path} {path.parent.name}\n" for path in videos))
    options = {**STREAMS, "rgb": "video/list", "flow_source": str(motion / "flow")}
    data = build_component("dataset", "video/two-stream", {**options, "source": str(tmp_path / "list.txt")})
    rgb = build_component("dataset", "video/list", {"source": str(tmp_path / "list.txt")})
    flow = build_component("dataset", "video/flow", {"source": str(motion / "flow")})
    assert [len(data), data.classes, data.label(17)] == [24, rgb.classes, rgb.label(17)]
    for index in (0, 17, 23):
        assert data.key(index) == f"{videos[index]}"
        assert flow.key(index).endswith(f"{videos[index].parent.name}/{videos[index].name}.flow")
        sample = data[index]
        torch.testing.assert_close(sample["clip"], rgb[index]["clip"])
        torch.testing.assert_close(sample["flow"], flow[index]["clip"])
        assert sample["label"] == rgb[index]["label"]


def test_a_damaged_flow_file_costs_its_video_alone(motion, tmp_path):
    shutil.copytree(motion / "flow", tmp_path / "flow")
    first, *_ = sorted((tmp_path / "flow").rglob("*.flow"))
    first.write_bytes(b"nothing")
    options = {"source": str(motion / "clips"), "flow_source": str(tmp_path / "flow"), **STREAMS}
    data = build_component("dataset", "video/two-stream", options)
    with pytest.raises(UnreadableInput) as caught:
        data[0]
    assert caught.value.source == data.key(0)
    assert caught.value.reason.startswith(f"its flow: {first}: not a file of 'tag-run flow'")
    assert data[1]["flow"].shape == (8, 2, 64, 64)


def test_flow_of_another_video_of_that_name_is_not_taken(motion, tmp_path):
    (tmp_path / "up").mkdir()
    first, second, *_ = sorted((motion / "clips" / "up").iterdir())
    shutil.copy(second, tmp_path / "up" / first.name)
    assert first.stat().st_size != second.stat().st_size
    options = {"source": [str(tmp_path)], "labelled": False, "flow_source": str(motion / "flow"), **STREAMS}
    data = build_component("dataset", "video/two-stream", options)
    with pytest.raises(UnreadableInput, match=rf"its flow: .*up/{first.name}.flow: made of another video"):
        data[0]


def test_without_a_folder_of_flow_the_command_that_makes_it_is_told(motion):
    options = {"source": str(motion / "clips"), "flow_source": "nowhere", **STREAMS}
    with pytest.raises(UserError, match="nowhere: no such folder; make it: tag-run flow"):
        build_component("dataset", "video/two-stream", options)


def test_the_recipe_written_out_is_the_recipe(motion, tmp_path):
    from tag_core.config import resolve

    whole = resolve(fused_recipe(motion), weights(motion)).to_dict()
    (tmp_path / "r.toml").write_text(tomli_w.dumps(whole))
    again = resolve(tmp_path / "r.toml").to_dict()
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(whole))
    assert resolve(tmp_path / "r.toml", ["weights=all.pt"]).weights == "all.pt"
