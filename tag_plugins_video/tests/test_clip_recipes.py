"""The recipes of the clip models: sizes, schedules and rates of the published trainings."""

import pytest
import torch

from tag_core.config import resolve
from tag_plugins_video.motion import make_motion_data

CLIPS = {
    "p3d": {"train": (16, 3, 160, 160), "val": (16, 3, 160, 160), "test": (10, 16, 3, 160, 160)},
    "c3d": {"train": (16, 3, 112, 112), "val": (16, 3, 112, 112), "test": (10, 16, 3, 112, 112)},
    "c3d-ucf101": {"train": (16, 3, 112, 112), "val": (16, 3, 112, 112), "test": (10, 16, 3, 112, 112)},
    "stnet": {"train": (35, 3, 224, 224), "val": (35, 3, 224, 224), "test": (125, 3, 256, 256)},
    "tsn-paddle": {"train": (3, 3, 224, 224), "val": (3, 3, 224, 224), "test": (7, 3, 224, 224)},
}
STEPS = {"p3d": 128, "p3d-flow": 128, "c3d": 30, "c3d-ucf101": 30, "stnet": 128, "tsn-paddle": 256}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "data"
    list(make_motion_data(folder, {"train": 8}))
    return str(folder / "train")


@pytest.fixture(scope="module")
def flow(clips, tmp_path_factory):
    pytest.importorskip("cv2", reason="the extra 'flow' (OpenCV) is not installed")
    from tag_plugins_video.cli_flow import make_all, plan
    from tag_plugins_video.flow import FlowSettings

    folder = tmp_path_factory.mktemp("flow") / "flow"
    list(make_all(plan([clips], folder), FlowSettings(short_side=176), workers=1))
    return str(folder)


def recipe_of(name, source):
    return resolve(f"video/{name}", [f"data.train.source={source}"])


@pytest.mark.parametrize("name", list(CLIPS))
def test_the_data_comes_in_the_size_that_was_published(name, clips):
    recipe = recipe_of(name, clips)
    data = {key: recipe.data[key].with_options(source=clips).build() for key in recipe.data}
    assert {key: tuple(dataset[0]["clip"].shape) for key, dataset in data.items()} == CLIPS[name]


def test_flow_comes_as_two_normalised_channels(flow):
    recipe = recipe_of("p3d-flow", flow)
    clip = recipe.data["train"].build()[0]["clip"]
    assert clip.shape == (16, 2, 160, 160)
    assert clip.dtype == torch.float32
    assert 0.01 < float(clip.abs().max()) <= 0.5 / 0.226 + 1e-5
    assert recipe.data["test"].with_options(source=flow).build()[0]["clip"].shape == (10, 16, 2, 160, 160)


def test_two_streams_come_in_the_sizes_of_each(clips, flow):
    recipe = resolve("video/two-stream", [f"data.train.source={clips}", f"data.train.flow_source={flow}"])
    for part, views in (("train", ()), ("val", ()), ("test", (10,))):
        sample = recipe.data[part].with_options(source=clips).build()[0]
        assert sample["clip"].shape == (*views, 16, 3, 160, 160)
        assert sample["flow"].shape == (*views, 16, 2, 160, 160)


@pytest.mark.parametrize("name", list(STEPS))
def test_clips_per_step_are_those_that_were_published(name, clips):
    options = recipe_of(name, clips).train
    assert options.batch_size * options.accumulate == STEPS[name]


@pytest.mark.parametrize(
    ("name", "steps_per_epoch", "drops"),
    [("stnet", 1756, [35_120, 70_240]), ("tsn-paddle", 878, [13_170, 26_340]), ("c3d-ucf101", 318, [20_000, 40_000])],
)
def test_the_rate_drops_to_a_tenth_at_the_published_steps(name, steps_per_epoch, drops, clips):
    """Of the specification: Kinetics-400's 224,684 videos for Paddle's models, UCF101's for C3D."""
    recipe = recipe_of(name, clips)
    total = recipe.train.epochs * steps_per_epoch
    schedule = recipe.schedule.build(total_steps=total, steps_per_epoch=steps_per_epoch)
    assert [step for step in range(1, total) if schedule(step) != schedule(step - 1)][:2] == drops
    assert schedule(drops[0]) == pytest.approx(0.1)
    assert schedule(drops[1]) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["stnet", "tsn-paddle"])
def test_paddles_models_decay_every_parameter_and_start_as_theirs(name, clips):
    recipe = recipe_of(name, clips)
    torch.manual_seed(0)
    task = recipe.task.build(classes=[str(i) for i in range(400)])
    assert float(task.head.weight.detach().abs().max()) == pytest.approx(2048**-0.5, rel=1e-3)
    groups = recipe.optimizer.build(model=task).param_groups
    assert {group["weight_decay"] for group in groups} == {1e-4}


@pytest.mark.parametrize(
    ("name", "lr", "factors"),
    [
        ("p3d", 0.1, {"head.bias": 2}),
        ("p3d-flow", 0.1, {"head.bias": 2, "backbone.stem.0.weight": 5}),
        ("two-stream", 0.1, {"rgb.head.bias": 2, "flow.head.bias": 2, "flow.backbone.stem.0.weight": 5}),
        ("c3d", 1e-4, "biases"),
        ("c3d-ucf101", 0.003, "biases"),
        ("stnet", 0.01, {}),
        ("tsn-paddle", 0.01, {}),
    ],
)
def test_every_parameter_gets_the_published_rate(name, lr, factors, clips):
    recipe = recipe_of(name, clips)
    with torch.device("meta"):
        task = recipe.task.build(classes=["a", "b"])
    if factors == "biases":
        factors = {name: 2 for name, _ in task.named_parameters() if name.endswith("bias")}
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    groups = recipe.optimizer.build(model=task).param_groups
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert rates == pytest.approx({name: lr * factors.get(name, 1) for name in names.values()})
