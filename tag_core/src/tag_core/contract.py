"""What a component of each kind must do, as checks for :mod:`tag_core.testing`."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from tag_core.config import resolve
from tag_core.engine.distributed import Distribution
from tag_core.errors import TagError
from tag_core.records import Record

CLASSES = ["a", "b", "c", "d", "e"]
STEPS = 20
Build = Callable[[], Any]
Given = Mapping[str, Any]


def check_backbone(model: Any, inputs: Any, build: Build, given: Given) -> None:
    _is_module(model)
    assert type(model.feature_dim) is int, "feature_dim must be an int"
    with torch.no_grad():
        features = model.eval()(inputs)
        assert features.shape == (len(inputs), model.feature_dim), f"features are {list(features.shape)}"
        assert features.isfinite().all(), "features are not finite"
        _round_trips(model, build(), lambda m: m.eval()(inputs))


def check_task(model: Any, batch: Any, build: Build, given: Given) -> None:
    _is_module(model)
    loss = model.train()(batch)["loss"]
    _finite_scalar(loss)
    loss.backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients, "no parameter gets a gradient"
    assert all(g.isfinite().all() for g in gradients), "a gradient is not finite"
    with torch.no_grad():
        outputs = model.eval().predict(batch)
        _round_trips(model, build(), lambda m: m.eval().predict(batch))
    records = list(model.records(outputs, batch))
    assert {record.source for record in records} == set(batch["source"]), "records must name every source"
    assert all(isinstance(record, Record) and record.to_json() for record in records)


def check_loss(loss: Any, inputs: Any, build: Build, given: Given) -> None:
    logits = inputs[0].clone().requires_grad_()
    value = loss(logits, *inputs[1:])
    _finite_scalar(value)
    value.backward()
    assert logits.grad is not None, "the loss does not depend on its first input"
    assert logits.grad.isfinite().all(), "the gradient is not finite"


def check_metric(metric: Any, pairs: Any, build: Build, given: Given) -> None:
    other, whole = build(), build()
    for part, (outputs, batch) in zip((metric, other), pairs, strict=True):
        part.update(outputs, batch)
        whole.update(outputs, batch)
    metric.merge(pickle.loads(pickle.dumps(other)))
    values = dict(whole.compute())
    assert values, "compute gives nothing"
    _same(dict(metric.compute()), values, "two halves merged differ from the whole")
    metric.reset()
    for outputs, batch in pairs:
        metric.update(outputs, batch)
    _same(dict(metric.compute()), values, "reset leaves something behind")


def check_dataset(data: Any, inputs: Any, build: Build, given: Given) -> None:
    assert len(data) > 0, "the example holds no sample"
    keys = [data.key(index) for index in range(len(data))]
    assert len(set(keys)) == len(keys), "keys are not unique"
    copy = pickle.loads(pickle.dumps(data))
    for index in {0, len(data) - 1}:
        sample = _seeded(data.__getitem__, index)
        assert isinstance(sample.get("source"), str), "a sample has 'source', the file it is read from"
        _same(_seeded(data.__getitem__, index), sample, "not deterministic under a seed")
        _same(_seeded(copy.__getitem__, index), sample, "a pickled copy reads something else")
        if getattr(data, "classes", None) and "label" in sample:
            label = data.label(index)
            label = [int(c in label) for c in range(len(data.classes))] if isinstance(label, list) else label
            assert torch.as_tensor(sample["label"]).tolist() == label, "label(index) is not the sample's label"


def check_transform(transform: Any, inputs: Any, build: Build, given: Given) -> None:
    output, again = _seeded(transform, inputs.clone()), pickle.loads(pickle.dumps(transform))
    _same(_seeded(transform, inputs.clone()), output, "not deterministic under a seed")
    _same(_seeded(again, inputs.clone()), output, "a pickled copy gives something else")
    kept = output.dtype == inputs.dtype or "float" in str(transform.__doc__).lower()
    assert kept, f"{inputs.dtype} becomes {output.dtype}; keep uint8, or say 'float' in the docstring"


def check_optimizer(optimizer: Any, inputs: Any, build: Build, given: Given) -> None:
    model, before = given["model"], [p.detach().clone() for p in given["model"].parameters()]
    assert isinstance(optimizer, torch.optim.Optimizer), "return a torch.optim.Optimizer"
    assert all("initial_lr" in group for group in optimizer.param_groups), "groups need initial_lr, as groups_of gives"
    model["head"](model["norm"](model["backbone"](inputs))).square().mean().backward()
    optimizer.step()
    after = list(model.parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "a step changes nothing"
    assert all(p.isfinite().all() for p in after), "a step makes weights infinite"
    build().load_state_dict(optimizer.state_dict())


def check_schedule(schedule: Any, steps: Any, build: Build, given: Given) -> None:
    factors = [float(schedule(step)) for step in steps]
    assert all(math.isfinite(factor) and factor >= 0 for factor in factors), f"factors {factors}"


def check_sink(sink: Any, records: Any, build: Build, given: Given) -> None:
    for record in records:
        sink.write(record)
    sink.close()
    assert list(given["path"].parent.glob(f"{given['path'].name}*")), "nothing was written under the path given"


def check_index(index: Any, inputs: Any, build: Build, given: Given) -> None:
    vectors, queries = inputs
    index.add(range(len(vectors)), vectors)
    nearest = [np.asarray(part).reshape(len(queries), -1)[:, 0].tolist() for part in index.search(queries, 1)]
    assert list(range(len(queries))) in nearest, "a stored vector is not its own nearest neighbour"


CHECKS: dict[str, Callable[[Any, Any, Build, Given], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}


def check_distribution(build: Build) -> None:
    try:
        built = build()
    except TagError:  # it needs what this machine lacks, and says so
        return
    assert isinstance(built, Distribution), "a distribution extends tag_core.engine.distributed.Distribution"
    assert 0 <= built.rank < built.world


def check_recipe(name: str) -> None:
    bare = resolve(name, needs=())
    train = bare.data.get("train")
    source = ["data.train.source=FOLDER"] if train and train.takes("source") and "source" not in train.options else []
    needs = ("data.train", "optimizer") if bare.optimizer else ("data.test",)
    whole = resolve(name, source, needs)
    assert resolve(whole.to_dict(), needs=needs).to_dict() == whole.to_dict(), "written out, it is another recipe"


def check_command(command: Any) -> None:
    import click
    from click.testing import CliRunner

    assert isinstance(command, click.Command), "a command is a click command"
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0, done.output


def default_input(kind: str, component: Any) -> tuple[Any, str]:
    """The kit's own example for a kind; None, and why, where there is none that fits."""
    seed()
    if kind == "backbone":
        return _first_that_fits(component, torch.rand(2, 3, 64, 64), torch.rand(2, 3, 8, 64, 64))
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    examples: dict[str, Any] = {
        "loss": (torch.randn(4, 5), torch.arange(4)),
        "metric": [_predictions([0, 1, 2, 3]), _predictions([4, 0, 1])],
        "transform": torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8),
        "optimizer": torch.randn(6, 3),
        "schedule": range(STEPS),
        "sink": [Record(source="a.mp4", labels=["a"], scores=[0.5]), Record(source="b.mp4", error="no such file")],
        "index": (vectors, vectors[:3]),
        "dataset": (),
    }
    return examples.get(kind), ""


def _first_that_fits(model: Any, *candidates: torch.Tensor) -> tuple[Any, str]:
    why = ""
    for tensor in candidates:
        try:
            with torch.no_grad():
                features = model.eval()(tensor)
            if features.shape == (len(tensor), model.feature_dim):
                return tensor, ""
            why += f"\n{list(tensor.shape)} gives features {list(features.shape)}, feature_dim is {model.feature_dim}"
        except Exception as error:
            why += f"\n{list(tensor.shape)}: {type(error).__name__}: {error}"
    return None, why


def _predictions(labels: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    logits = torch.randn(len(labels), len(CLASSES))
    outputs = {"logits": logits, "scores": logits.softmax(1), "embedding": torch.randn(len(labels), 8)}
    return outputs, {"label": torch.tensor(labels), "source": [f"{label}.mp4" for label in labels]}


def _is_module(model: object) -> None:
    assert isinstance(model, nn.Module), f"{type(model).__name__} is no nn.Module"


def _finite_scalar(loss: Any) -> None:
    assert loss.dim() == 0, f"the loss has shape {list(loss.shape)}; give the mean over the batch"
    assert loss.isfinite(), "the loss is not finite"


def _round_trips(model: nn.Module, other: nn.Module, run: Callable[[Any], Any]) -> None:
    expected = run(model)
    for parameter in other.parameters():
        parameter.data.add_(1)
    other.load_state_dict(model.state_dict())
    _same(run(other), expected, "its state dict does not hold all of it")
    _same(run(pickle.loads(pickle.dumps(model))), expected, "pickled, it is another model")


def _same(found: Any, expected: Any, problem: str) -> None:
    """Equal within float tolerance, through tables and lists."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), f"{problem}: {list(found)} and {list(expected)}"
        for key in expected:
            _same(found[key], expected[key], f"{problem}: {key}")
    elif isinstance(expected, (torch.Tensor, np.ndarray, float)):
        torch.testing.assert_close(found, expected, equal_nan=True, msg=lambda text: f"{problem}: {text}")
    else:
        assert found == expected, f"{problem}: {found!r} and {expected!r}"


def _seeded(function: Callable[..., Any], *arguments: Any) -> Any:
    seed()
    return function(*arguments)


def seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)
