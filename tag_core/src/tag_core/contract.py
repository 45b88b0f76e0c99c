"""What a component of each kind must do: one check a kind, for :mod:`tag_core.testing`.

A check gets the component, the author's example or None, how to build the component anew, and what the
engine gives to its kind.
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Mapping
from typing import Any

import click
import numpy as np
import torch
from click.testing import CliRunner
from torch import nn

from tag_core.config import resolve
from tag_core.engine.distributed import Distribution
from tag_core.records import Record

CLASSES = ["a", "b", "c", "d", "e"]
STEPS = 20
Build = Callable[[], Any]
Given = Mapping[str, Any]


class Pictures:
    """What a sampler may ask of a labelled data set of pictures; there are none to read."""

    classes = CLASSES

    def __len__(self) -> int:
        return 40

    def key(self, index: int) -> str:
        return f"{self.label(index)}/{index}.jpg"

    def label(self, index: int) -> int:
        return index % len(CLASSES)

    def size(self, index: int) -> tuple[int, int]:
        return 64, 48 + index


def check_backbone(model: Any, example: Any, build: Build, given: Given) -> None:
    model.eval()
    with torch.no_grad():
        inputs = _picture_or_clip(model) if example is None else example
        features = model(inputs)
        assert type(model.feature_dim) is int, "feature_dim must be an int"
        found, told = f"features are {list(features.shape)}", f"feature_dim is {model.feature_dim}"
        count = len(next(iter(inputs.values())) if isinstance(inputs, Mapping) else inputs)
        assert features.shape == (count, model.feature_dim), f"{found}, {told}"
        assert features.isfinite().all(), "features are not finite"
        _round_trips(model, build(), lambda m: m.eval()(inputs))


def check_task(model: Any, batch: Any, build: Build, given: Given) -> None:
    assert batch is not None, "give an example_input: a batch that it reads"
    _has_gradient(model.train()(batch)["loss"], list(model.parameters()))
    with torch.no_grad():
        outputs = model.eval().predict(batch)
        _round_trips(model, build(), lambda m: m.eval().predict(batch))
    records = list(model.records(outputs, batch))
    assert {record.source for record in records} == set(batch["source"]), "records must name every source"
    assert all(isinstance(record, Record) and record.to_json() for record in records)


def check_loss(loss: Any, example: Any, build: Build, given: Given) -> None:
    logits, *targets = (torch.randn(4, 5), torch.arange(4)) if example is None else example
    logits = logits.clone().requires_grad_()
    _has_gradient(loss(logits, *targets), [logits])


def check_metric(metric: Any, example: Any, build: Build, given: Given) -> None:
    pairs = [_predictions([0, 1, 2, 3]), _predictions([4, 0, 1])] if example is None else example
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


def check_dataset(data: Any, example: Any, build: Build, given: Given) -> None:
    assert len(data) > 0, "the example holds no sample"
    keys = [data.key(index) for index in range(len(data))]
    assert len(set(keys)) == len(keys), "keys are not unique"
    for index in {0, len(data) - 1}:
        sample = _repeats(lambda d, i=index: d[i], data)  # type: ignore[misc]
        assert isinstance(sample.get("source"), str), "a sample has 'source', the file it is read from"


def check_transform(transform: Any, example: Any, build: Build, given: Given) -> None:
    inputs = torch.randint(0, 256, (8, 3, 64, 64), dtype=torch.uint8) if example is None else example
    _repeats(lambda t: t(inputs.clone()), transform)


def check_optimizer(optimizer: Any, example: Any, build: Build, given: Given) -> None:
    assert isinstance(optimizer, torch.optim.Optimizer), "return a torch.optim.Optimizer"
    assert all("initial_lr" in group for group in optimizer.param_groups), "groups need initial_lr, as groups_of gives"
    before = [p.detach().clone() for p in given["model"].parameters()]
    given["model"](torch.randn(6, 3)).square().mean().backward()
    optimizer.step()
    after = list(given["model"].parameters())
    assert not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "a step changes nothing"
    build().load_state_dict(optimizer.state_dict())


def check_sampler(sampler: Any, example: Any, build: Build, given: Given) -> None:
    for epoch in (0, 1):
        batches = [list(batch) for batch in sampler.batches(epoch)]
        assert batches, "no batch of the data"
        assert {index for batch in batches for index in batch} <= set(range(len(given["dataset"]))), "no such sample"
        assert all(len(batch) <= given["batch_size"] for batch in batches), "a batch is above batch_size"
        assert [list(batch) for batch in build().batches(epoch)] == batches, "asked again, an epoch has other batches"


def check_schedule(schedule: Any, example: Any, build: Build, given: Given) -> None:
    factors = [float(schedule(step)) for step in range(STEPS)]
    assert all(math.isfinite(factor) and factor >= 0 for factor in factors), f"factors {factors}"


def check_distribution(built: Any, example: Any, build: Build, given: Given) -> None:
    assert isinstance(built, Distribution), "a distribution extends tag_core.engine.distributed.Distribution"
    assert 0 <= built.rank < built.world


def check_sink(sink: Any, example: Any, build: Build, given: Given) -> None:
    sink.write(Record(source="a.mp4", labels=["a"], scores=[0.5], boxes=[[0.0, 0.0, 9.0, 9.0]]))
    sink.write(Record(source="b.mp4", error="no such file"))
    sink.close()
    assert list(given["path"].parent.glob(f"{given['path'].name}*")), "nothing was written under the path given"


def check_index(index: Any, example: Any, build: Build, given: Given) -> None:
    vectors = np.random.default_rng(0).standard_normal((20, 8)).astype(np.float32)
    vectors, queries = (vectors, vectors[:3]) if example is None else example
    index.add(vectors)
    distances, numbers = (np.asarray(part) for part in index.search(queries, 2))
    assert distances.shape == numbers.shape == (len(queries), 2), "distances and numbers are not [Q, k]"
    assert numbers[:, 0].tolist() == list(range(len(queries))), "a stored vector is not its own nearest neighbour"
    expected = np.square(vectors[numbers[:, 1]] - queries).sum(1)
    np.testing.assert_allclose(distances[:, 1], expected, rtol=0.5, err_msg="distances are squared Euclidean")


CHECKS: dict[str, Callable[[Any, Any, Build, Given], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
"""Kind -> its check."""


def recipe_resolves(name: str) -> None:
    data = resolve(name, needs=()).data
    source = ["data.train.source=FOLDER"] if "train" in data and data["train"].takes("source") else []
    whole = resolve(name, source, needs=("data.",)).to_dict()
    assert resolve(whole).to_dict() == whole, "written out, it is another recipe"


def command_helps(command: Any) -> None:
    assert isinstance(command, click.Command), "a command is a click command"
    done = CliRunner().invoke(command, ["--help"])
    assert done.exit_code == 0, done.output


def seed() -> None:
    """All random generators, so that two runs are the same."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


def _picture_or_clip(model: Any) -> torch.Tensor:
    """A picture [2, 3, 64, 64], or else a clip [2, 3, 8, 64, 64], whichever the backbone takes."""
    problems = []
    for inputs in (torch.rand(2, 3, 64, 64), torch.rand(2, 3, 8, 64, 64)):
        try:
            model(inputs)
            return inputs
        except Exception as error:
            problems.append(f"\n{list(inputs.shape)}: {type(error).__name__}: {error}")
    raise AssertionError(f"give an example_input that it takes{''.join(problems)}")


def _predictions(labels: list[int]) -> tuple[dict[str, Any], dict[str, Any]]:
    logits = torch.randn(len(labels), len(CLASSES))
    outputs = {"logits": logits, "scores": logits.softmax(1), "embedding": torch.randn(len(labels), 8)}
    return outputs, {"label": torch.tensor(labels), "source": [f"{label}.mp4" for label in labels]}


def _has_gradient(loss: Any, leaves: list[torch.Tensor]) -> None:
    assert loss.dim() == 0, f"the loss has shape {list(loss.shape)}; give the mean over the batch"
    assert loss.isfinite(), "the loss is not finite"
    loss.backward()
    gradients = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert gradients, "the loss has no gradient"
    assert all(gradient.isfinite().all() for gradient in gradients), "the gradient is not finite"


def _repeats(run: Callable[[Any], Any], component: Any) -> Any:
    """The same result again under the same seed, from a pickled copy too; returns it."""
    results = []
    for each in (component, component, pickle.loads(pickle.dumps(component))):
        seed()
        results.append(run(each))
    _same(results[1], results[0], "not deterministic under a seed")
    _same(results[2], results[0], "a pickled copy gives something else")
    return results[0]


def _round_trips(model: nn.Module, other: nn.Module, run: Callable[[Any], Any]) -> None:
    """The state dict holds the whole model, and so does a pickle."""
    expected = run(model)
    for parameter in other.parameters():
        parameter.data.add_(1)
    other.load_state_dict(model.state_dict())
    _same(run(other), expected, "its state dict does not hold all of it")
    _same(run(pickle.loads(pickle.dumps(model))), expected, "pickled, it is another model")


def _same(found: Any, expected: Any, problem: str) -> None:
    """Equal within float tolerance, through tables."""
    if isinstance(expected, Mapping):
        assert found.keys() == expected.keys(), f"{problem}: {list(found)} and {list(expected)}"
        for key in expected:
            _same(found[key], expected[key], f"{problem}: {key}")
    elif isinstance(expected, (torch.Tensor, np.ndarray, float)):
        torch.testing.assert_close(found, expected, equal_nan=True, msg=lambda text: f"{problem}: {text}")
    else:
        assert found == expected, f"{problem}: {found!r} and {expected!r}"
