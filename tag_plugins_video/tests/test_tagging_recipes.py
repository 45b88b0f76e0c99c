"""The published training of the three YouTube-8M models, as recipes."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tag_core.api import predict, train
from tag_core.config import resolve

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RECORD = SHARED / "yt8m" / "yt8m_frame_example.pkl"
EIGENVALUES = SHARED / "yt8m" / "eigenvals.npy"
SMALL = {
    "attention-cluster": ["task.backbone.clusters=4", "task.backbone.hidden=[32,32]"],
    "attention-lstm": ["task.backbone.embedding=8", "task.backbone.lstm=8", "task.backbone.hidden=[32,32]"],
    "nextvlad": ["task.backbone.clusters=4", "task.backbone.hidden=32"],
}
NO_WORKERS = ["train.workers=0", "eval.workers=0"]
every_recipe = pytest.mark.parametrize("name", SMALL)


def recipe_of(name, *overrides):
    return resolve(f"video/{name}", ["data.train.source=train.list", *overrides])


@pytest.mark.parametrize(
    ("name", "epochs", "batch_size", "eval_batch_size", "lr", "optimizer"),
    [
        ("attention-cluster", 5, 2048, 256, 1e-3, "core/adam"),
        ("attention-lstm", 10, 1024, 128, 1e-3, "core/rmsprop"),
        ("nextvlad", 6, 160, 40, 2e-4, "core/adam"),
    ],
)
def test_recipes_have_the_published_numbers(name, epochs, batch_size, eval_batch_size, lr, optimizer):
    recipe = recipe_of(name)
    assert (recipe.train.epochs, recipe.train.batch_size, recipe.eval.batch_size) == (
        epochs,
        batch_size,
        eval_batch_size,
    )
    assert (recipe.optimizer.entry.name, recipe.optimizer.options["lr"]) == (optimizer, lr)
    assert recipe.task.options["top_k"] == 20
    assert recipe.task.options["loss"].options["reduction"] == "sum"
    assert recipe.train.clip_norm == 0
    assert recipe.task.options["head_decay"] == (1e-5 if name == "nextvlad" else 0)


@pytest.mark.parametrize(
    ("name", "factors"),
    [
        ("attention-cluster", {0: 1, 24_414: 1, 699_999: 1}),
        ("attention-lstm", {0: 1, 24_413: 1, 24_415: 0.1, 48_828: 0.1}),
        ("nextvlad", {0: 1, 12_499: 1, 12_500: 0.8, 24_999: 0.8, 25_000: 0.64, 699_999: 0.8**55}),
    ],
)
def test_learning_rates_change_where_published(name, factors):
    schedule = recipe_of(name).schedule.build(total_steps=700_000, steps_per_epoch=5_000_000 // 1024)
    assert {step: schedule(step) for step in factors} == pytest.approx(factors)


def test_only_the_cluster_model_draws_a_hundred_frames_and_at_random_in_training_alone():
    for name in SMALL:
        data = recipe_of(name).data
        frames = 100 if name == "attention-cluster" else None
        assert [data[part].options["num_frames"] for part in ("train", "val", "test")] == [frames] * 3
        assert [data[part].options["random"] for part in ("train", "val", "test")] == [frames is not None, False, False]


def test_the_lstms_optimizer_takes_the_steps_that_paddles_takes_on_the_summed_loss():
    spec = recipe_of("attention-lstm").optimizer
    assert spec.options["eps"] == pytest.approx(1e-6**0.5 / 1024)  # both as if the gradient were always the same
    torch.manual_seed(0)
    model, batch, rate, decay = nn.Linear(4, 3, bias=False).double(), 1024, 1e-3, 8e-4
    weight = model.weight.detach().numpy().copy()
    square, mean, rng = np.zeros_like(weight), np.zeros_like(weight), np.random.default_rng(0)
    optimizer = spec.with_options(eps=0.0).build(model=model)
    for _ in range(20):
        gradient = 1e-6 * rng.standard_normal(weight.shape)  # of the mean loss; decay matters beside it
        model.weight.grad = torch.from_numpy(gradient.copy())
        optimizer.step()
        summed = batch * gradient + decay * weight
        square, mean = 0.95 * square + 0.05 * summed**2, 0.95 * mean + 0.05 * summed
        weight = weight - rate * summed / np.sqrt(square - mean**2)
    np.testing.assert_allclose(model.weight.detach().numpy(), weight, rtol=1e-9)


@every_recipe
def test_features_of_ones_own_need_one_override(name):
    recipe = recipe_of(name, "task.backbone.modalities={frames=512}")
    assert recipe.task.options["backbone"].options["modalities"] == {"frames": 512}


def records(path, count, seed=0):
    """A pickle as Paddle's converter writes it: the label is the sign of the audio."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        frames, label = int(rng.integers(3, 9)), number % 2
        rgb = rng.integers(0, 256, (frames, 1024), dtype=np.uint8)
        audio = rng.integers(128 * label, 128 * label + 128, (frames, 128), dtype=np.uint8)
        rows.append({"video": f"v{number}", "feature": rgb, "audio": audio, "label": [label, 2], "nframes": frames})
    path.write_bytes(pickle.dumps(rows, protocol=2))
    return str(path)


@every_recipe
def test_a_small_model_trains_on_records_and_tags_new_ones(name, tmp_path):
    source, new = records(tmp_path / "train.pkl", 24), records(tmp_path / "new.pkl", 6, seed=1)
    data = [f"data.train.source={source}", "data.train.num_classes=3", f"data.val.source={new}", "task.top_k=3"]
    options = ["train.epochs=6", "train.batch_size=8", "train.validate_every=6", *NO_WORKERS]
    options += ["optimizer.lr=0.003", "task.backbone.dropout=0"]
    if name != "attention-cluster":
        data.append("data.train.max_frames=10")
    trained = train(f"video/{name}", [*data, *SMALL[name], *options], out=str(tmp_path / "run"))
    assert trained.scores["gap"] > 0.9
    found = list(predict(str(tmp_path / "run"), [new]))
    assert [record.source for record in found] == [f"{new}#v{i}" for i in range(6)]
    for number, record in enumerate(found):
        assert record.labels.index(str(number % 2)) < record.labels.index(str(1 - number % 2))


@pytest.mark.skipif(not RECORD.is_file(), reason="shared/data is not here")
@every_recipe
def test_a_recipe_reads_and_tags_a_real_record(name):
    overrides = [f"data.test.eigenvalues={EIGENVALUES}"] if name == "nextvlad" else []
    recipe = resolve(f"video/{name}", [f"data.train.source={RECORD}", *SMALL[name], *overrides])
    dataset = recipe.data["test"].with_options(source=[str(RECORD)], labelled=True).build()
    sample = dataset[0]
    assert len(dataset) == 1
    assert sample["label"].nonzero().flatten().tolist() == [11]
    torch.manual_seed(0)
    task = recipe.task.build(classes=dataset.classes).eval()
    batch = {key: sample[key][None] for key in ("rgb", "audio", "label")}
    batch |= {"length": torch.tensor([sample["length"]]), "source": [sample["source"]], "damage": [None]}
    with torch.no_grad():
        outputs = task.predict(batch)
    assert int(batch["length"]) == (100 if name == "attention-cluster" else 170)
    assert outputs["scores"].shape == (1, 3862)
    assert outputs["loss"].isfinite()
    record = next(iter(task.records(outputs, batch)))
    assert (record.truth, len(record.labels)) == ("11", 20)
