"""What the tasks without labels share, and whole trainings with them: resumed, on two processes, and used."""

import shutil
import subprocess
import sys

import pytest
import tomli_w
import torch
import torch.distributed as dist
from torch import nn

import tag_core
from tag_core.engine import checkpoint
from tag_core.errors import UserError
from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.motion import make_motion_data
from tag_plugins_video.tasks.self_supervised import Momentum, gather, takes_part

C3D = {"name": "video/c3d-tiny", "width": 4}
VIT = {"name": "video/vit", "dim": 12, "depth": 1, "heads": 2, "patch": 8, "tubelet": 2}
TASKS = {
    "moco": {"name": "video/moco", "backbone": C3D, "dim": 8, "queue": 10, "momentum": 0.9},
    "simclr": {"name": "video/simclr", "backbone": C3D, "dim": 8},
    "byol": {"name": "video/byol", "backbone": C3D, "dim": 8, "hidden": 16, "momentum": 0.9},
    "mae": {"name": "video/mae", "backbone": VIT, "decoder_dim": 12, "decoder_depth": 1, "decoder_heads": 2},
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "data"
    list(make_motion_data(folder, {"train": 8, "test": 8}))
    return folder


def recipe_of(task, clips, **train):
    views = [{"name": "video/random-crop", "size": 24}, {"name": "video/color-jitter"}]
    data = {"name": "video/folder", "source": str(clips / "train"), "labelled": False, "short_side": 32}
    sampling = {"sampler": "dense", "clip_len": 4, "num_clips": 2, "random": True}
    return {
        "task": task,
        "data": {
            "holdout": 0,
            "train": {**data, **sampling, "transforms": [{"name": "video/per-view", "transforms": views}]},
            "test": {"num_clips": 1, "random": False, "transforms": []},
        },
        "optimizer": {"name": "core/sgd", "lr": 0.1},
        "train": {"epochs": 2, "batch_size": 4, "workers": 0, "log_every": 1, **train},
        "eval": {"workers": 0},
    }


def test_a_momentum_encoder_starts_as_the_model_and_then_follows():
    torch.manual_seed(0)
    model = C3DTiny(width=2)
    follower = Momentum(model, 0.9)
    for value in model.state_dict().values():
        value += 1  # weights loaded later on
    follower.update_parameters(model)
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for step in range(3):
        for number, value in enumerate(model.state_dict().values()):
            value += step + number
        for key, value in model.state_dict().items():
            floating = value.is_floating_point()
            expected[key] = 0.9 * expected[key] + 0.1 * value if floating else value.clone()
        follower.update_parameters(model)
    for key, value in follower.module.state_dict().items():
        torch.testing.assert_close(value, expected[key])


def test_fresh_batch_norm_takes_the_statistics_of_the_first_batch():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).train()
    inputs = torch.randn(50, 3)
    follower = Momentum(model, 0.9)
    follower.update(model, inputs)
    hidden = model[0](inputs)
    for norm in (model[1], follower.module[1]):
        torch.testing.assert_close(norm.running_mean, hidden.mean(0))
        torch.testing.assert_close(norm.running_var, hidden.var(0))
        assert norm.momentum == 0.1
    follower.update(model, inputs + 100)
    torch.testing.assert_close(follower.module[1].running_mean, hidden.mean(0))


def test_a_momentum_encoder_stays_in_evaluation_mode():
    owner = nn.ModuleList([Momentum(C3DTiny(width=2), 0.9)]).train()
    assert owner.training
    assert not any(module.training for module in owner[0].modules())


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Asks(nn.Linear):
    def forward(self, inputs):
        self.answer = takes_part(self)
        return super().forward(inputs)


def test_a_model_that_the_engine_calls_without_the_others_knows(one_process):
    model = Asks(2, 2)
    model(torch.zeros(1, 2))
    assert not model.answer
    nn.parallel.DistributedDataParallel(model)(torch.zeros(1, 2))
    assert model.answer


def test_sharded_weights_are_refused(one_process):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model = Asks(2, 2)
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(UserError, match="use core/ddp"):
        model(torch.zeros(1, 2))


def test_one_process_gathers_its_own_features_with_their_gradient(one_process):
    features = torch.randn(3, 4, requires_grad=True)
    found, start = gather(features)
    found.square().sum().backward()
    assert start == 0
    assert torch.equal(found, features)
    torch.testing.assert_close(features.grad, 2 * features.detach())


@pytest.mark.parametrize("name", list(TASKS))
def test_a_training_that_was_cut_off_goes_on_bit_identically(name, clips, tmp_path, monkeypatch):
    recipe = recipe_of(TASKS[name], clips, checkpoint_every=1, accumulate=2, batch_size=2)
    write, killed = checkpoint.save, tmp_path / "killed"

    def save_and_keep_the_first(path, state):
        write(path, state)
        if not killed.exists():
            shutil.copytree(tmp_path / "whole", killed)

    monkeypatch.setattr(checkpoint, "save", save_and_keep_the_first)
    tag_core.train(recipe, out=tmp_path / "whole")
    assert checkpoint.load(killed / "checkpoints" / "last.pt")["position"]["step"] == 1
    tag_core.train(recipe, out=killed, resume=True)
    whole, resumed = (checkpoint.load(tmp_path / run / "checkpoints" / "last.pt") for run in ("whole", "killed"))
    assert whole["position"]["step"] == 4
    assert all(torch.equal(value, resumed["model"][key]) for key, value in whole["model"].items())
    scores = [(tmp_path / run / "scores.jsonl").read_text() for run in ("whole", "killed")]
    assert scores[0] == scores[1]


@pytest.mark.parametrize(
    ("name", "batch_size"),
    [
        ("simclr", 7),  # shares of 4 and 3, then a batch of one clip, of which the second process has none
        ("moco", 3),  # shares of 2 and 1; both have one of the last two
    ],
)
def test_two_processes_give_the_losses_and_weights_of_one(name, batch_size, clips, tmp_path):
    # Batch norm would take its statistics per process: a transformer has none.
    recipe = recipe_of({**TASKS[name], "backbone": VIT}, clips, batch_size=batch_size, drop_last=False)
    recipe["task"]["queue"] = 32
    if name == "simclr":
        del recipe["task"]["queue"]
    (tmp_path / "recipe.toml").write_text(tomli_w.dumps(recipe))
    command = [sys.executable, "-m", "tag_core.cli.main", "train", "recipe.toml", "--out", "two", "--procs", "2"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    tag_core.train(recipe, out=tmp_path / "one")
    one, two = (checkpoint.load(tmp_path / run / "checkpoints" / "last.pt")["model"] for run in ("one", "two"))
    for key in one.keys() - {"queue"}:
        torch.testing.assert_close(two[key], one[key], rtol=1e-4, atol=1e-6, msg=lambda text, key=key: f"{key}: {text}")
    if name == "moco":  # the same keys, in the order of ranks
        assert one["position"] == 16
        torch.testing.assert_close(two["queue"].sum(0), one["queue"].sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(TASKS))
def test_what_was_learned_goes_into_embeddings_probe_votes_and_fine_tuning(name, clips, tmp_path):
    backbone = TASKS[name]["backbone"]
    tag_core.train(recipe_of(TASKS[name], clips, epochs=1), out=tmp_path / "learned")
    weights = tmp_path / "learned" / "checkpoints" / "last.pt"
    learned = {k: v for k, v in checkpoint.load(weights)["model"].items() if k.startswith("backbone.")}
    records = list(tag_core.predict(tmp_path / "learned", clips / "test"))
    assert {len(record.embedding) for record in records} == {12 if backbone is VIT else 16}
    data = {"train": {"name": "video/folder", "source": str(clips / "train")}, "val": {"source": str(clips / "test")}}
    shared = {"data": data, "weights": str(weights), "optimizer": {"name": "core/sgd", "lr": 0.1}}
    shared |= {"metrics": ["core/top-k"], "train": {"epochs": 1, "workers": 0}, "eval": {"workers": 0}}
    for task, loss, kept in (("linear-probe", True, True), ("knn", False, True), ("classification", True, False)):
        options = {"loss": {"name": "core/cross-entropy"}} if loss else {}
        recipe = {**shared, "task": {"name": f"video/{task}", "backbone": backbone, **options}}
        trained = tag_core.train(recipe, out=tmp_path / task)
        assert 0 <= trained.scores["top1"] <= 1
        model = checkpoint.load(tmp_path / task / "checkpoints" / "last.pt")["model"]
        assert all(torch.equal(model[key], value) for key, value in learned.items()) is kept
        said = (tmp_path / task / "log.txt").read_text()
        assert f"{len(learned)} tensors loaded" in said
