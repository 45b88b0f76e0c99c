"""Splits, order, seeds, batches and coverage: the same on every machine, whatever reads them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag_core.config import resolve
from tag_core.engine.data import (
    Coverage,
    Item,
    Loaded,
    Loader,
    Part,
    _split,
    collate,
    datasets,
    epoch_plan,
    item,
    same_shapes,
)
from tag_core.errors import ConfigError, UnreadableInput, UserError


class Listed:
    """Keys with labels; a sample holds what torch, numpy and Python draw, or cannot be read."""

    def __init__(self, keys: Sequence[str], labels: Sequence[int] | None = None, bad: Sequence[int] = ()) -> None:
        self.keys, self.labels, self.bad = list(keys), labels, set(bad)
        self.classes = ["a", "b"] if labels is not None else None

    def __len__(self) -> int:
        return len(self.keys)

    def key(self, index: int) -> str:
        return self.keys[index]

    def label(self, index: int) -> int:
        assert self.labels is not None
        return self.labels[index]

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self.bad:
            raise UnreadableInput(self.keys[index], "torn")
        drawn = [float(torch.rand(())), float(np.random.rand()), random.random()]
        return {"source": self.keys[index], "drawn": torch.tensor(drawn, dtype=torch.float64)}


def keys_of(dataset: Any, indices: Sequence[int]) -> list[str]:
    return [dataset.key(index) for index in indices]


# --- the held-out part


def test_the_held_out_part_is_the_same_on_every_machine() -> None:
    # By sha256sum of the part of the key below the common folder: per label the two smallest.
    names = [f"clips/{'ab'[i % 2]}/{i:02d}.mp4" for i in range(20)]
    held = keys_of(Listed(names), _split(Listed(names, [i % 2 for i in range(20)]), 0.2)[1])
    assert held == ["clips/b/03.mp4", "clips/b/05.mp4", "clips/a/16.mp4", "clips/a/18.mp4"]


def test_a_data_set_in_another_folder_is_split_the_same_way() -> None:
    below = [f"{'ab'[i % 2]}/{i}.mp4" for i in range(50)]
    labels = [i % 2 for i in range(50)]
    for root in ("clips/", "/mnt/other disk/clips/", "", "../"):
        assert _split(Listed([root + name for name in below], labels), 0.3) == _split(Listed(below, labels), 0.3)


def test_what_was_made_from_other_samples_is_split_as_they_are() -> None:
    class Made(Listed):
        def origin(self, index: int) -> str:
            return self.keys[index].removesuffix(".flow")

    names, labels = [f"{'ab'[i % 2]}/{i}.mp4" for i in range(50)], [i % 2 for i in range(50)]
    made = [f"flow/{name}.flow" for name in names]
    assert _split(Made(made, labels), 0.3) == _split(Listed(names, labels), 0.3)
    assert _split(Listed(made, labels), 0.3) != _split(Listed(names, labels), 0.3)


def test_the_order_in_which_files_are_listed_does_not_matter() -> None:
    names = [f"c/{'ab'[i % 2]}/{i}.mp4" for i in range(40)]
    there = Listed(names, [i % 2 for i in range(40)])
    back = Listed(names[::-1], [i % 2 for i in range(40)][::-1])
    assert set(keys_of(there, _split(there, 0.25)[1])) == set(keys_of(back, _split(back, 0.25)[1]))


@given(
    st.lists(st.tuples(st.text(min_size=1), st.integers(0, 1)), min_size=1, max_size=60, unique_by=lambda p: p[0]),
    st.floats(0.01, 0.99),
)
def test_every_label_gives_its_share_and_keeps_a_sample(rows: list[tuple[str, int]], share: float) -> None:
    dataset = Listed([key for key, _ in rows], [label for _, label in rows])
    kept, held = _split(dataset, share)
    assert sorted(kept + held) == list(range(len(rows)))
    assert kept == sorted(kept)
    sizes, gave = Counter(dataset.labels), Counter(dataset.label(i) for i in held)
    for label, size in sizes.items():
        if size == 1:
            assert gave[label] == 0
        else:
            assert 1 <= gave[label] <= size - 1
            assert abs(gave[label] - share * size) <= 1


def test_a_key_that_is_not_utf8_can_be_split() -> None:
    names = [f"v/{i}\udcff.mp4" for i in range(10)]
    assert len(_split(Listed(names), 0.2)[1]) == 2


def test_training_and_validation_share_no_sample(toy_recipe: dict[str, Any]) -> None:
    parts = datasets(resolve(toy_recipe), ("train", "val"))
    keys = {name: set(keys_of(part, range(len(part)))) for name, part in parts.items()}
    assert len(keys["train"]) == 32
    assert len(keys["val"]) == 8
    assert not keys["train"] & keys["val"]
    assert parts["val"].dataset.noise == 0.0
    assert parts["train"].dataset.noise == 0.1


def test_without_test_data_the_held_out_part_is_tested(toy_recipe: dict[str, Any]) -> None:
    recipe = resolve(toy_recipe)
    val, test = datasets(recipe, ("train", "val"))["val"], datasets(recipe, ("test",))["test"]
    assert keys_of(val, range(len(val))) == keys_of(test, range(len(test)))


def test_nothing_held_out_and_no_test_data_is_an_error_that_says_what_to_set(toy_recipe: dict[str, Any]) -> None:
    toy_recipe["data"]["holdout"] = 0
    assert set(datasets(resolve(toy_recipe), ("train", "val"))) == {"train"}
    with pytest.raises(ConfigError, match=r"data\.test\.source: required"):
        datasets(resolve(toy_recipe), ("test",))


def test_a_recipe_without_data_cannot_be_tested(toy_recipe: dict[str, Any]) -> None:
    del toy_recipe["data"]
    with pytest.raises(ConfigError, match=r"data\.test\.source: required"):
        datasets(resolve(toy_recipe, needs=()), ("test",))


def test_an_empty_folder_is_named(tmp_path: Any, toy_recipe: dict[str, Any]) -> None:
    (tmp_path / "empty").mkdir()
    toy_recipe["data"]["val"]["source"] = str(tmp_path / "empty")
    with pytest.raises(ConfigError, match=r"data\.val: no samples"):
        datasets(resolve(toy_recipe), ("train", "val"))


def test_the_order_of_the_training_classes_reaches_the_other_sets(tmp_path: Any, toy_recipe: dict[str, Any]) -> None:
    for name, classes in (("train", "zab"), ("test", "ab")):
        for letter in classes:
            (tmp_path / name / letter).mkdir(parents=True)
            (tmp_path / name / letter / "x.txt").write_text("")
    named = {"name": "toy-plugin/named"}
    toy_recipe["data"] = {
        "train": {**named, "source": str(tmp_path / "train"), "classes": ["z", "a", "b"]},
        "val": {"source": str(tmp_path / "test"), "classes": []},
    }
    parts = datasets(resolve(toy_recipe), ("train", "val"))
    assert parts["train"].classes == parts["val"].classes == ["z", "a", "b"]
    assert [parts["val"].label(i) for i in range(2)] == [1, 2]


def test_a_part_answers_for_the_samples_it_has() -> None:
    part = Part(Listed(["p", "q", "r"], [0, 1, 1]), [2, 0])
    assert (len(part), part.key(0), part.label(1), part.classes) == (2, "r", 0, ["a", "b"])
    assert part[0]["source"] == "r"


# --- the order of an epoch


plans = st.fixed_dictionaries(
    {
        "length": st.integers(1, 200),
        "batch_size": st.integers(1, 40),
        "seed": st.integers(0, 2**32),
        "epoch": st.integers(0, 5),
        "shuffle": st.booleans(),
    }
)


@given(plans)
def test_an_epoch_has_every_sample_once_in_batches_of_the_size(plan: dict[str, Any]) -> None:
    batches = epoch_plan(**plan)
    order = [index for batch in batches for index, _ in batch]
    assert sorted(order) == list(range(plan["length"]))
    assert plan["shuffle"] or order == sorted(order)
    assert all(len(batch) == plan["batch_size"] for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= plan["batch_size"]


@given(plans)
def test_dropping_the_last_batch_leaves_full_ones_or_the_only_one(plan: dict[str, Any]) -> None:
    kept, whole = epoch_plan(**plan, drop_last=True), epoch_plan(**plan)
    assert kept == whole[: len(kept)]
    assert len(kept) == max(plan["length"] // plan["batch_size"], 1)


@given(plans, st.integers(1, 6))
def test_any_number_of_processes_reads_the_same_global_batches(plan: dict[str, Any], world: int) -> None:
    batches = epoch_plan(**plan)
    for batch in batches:
        shares = [batch[rank::world] for rank in range(world)]
        assert sorted(sum(shares, [])) == sorted(batch)
        assert max(map(len, shares)) - min(map(len, shares)) <= 1
    # The engine's generators have no part in it, so a resumed run finds the same plan.
    torch.rand(3)
    assert epoch_plan(**plan) == batches


@given(plans)
def test_a_samples_seed_depends_on_seed_epoch_and_index_alone(plan: dict[str, Any]) -> None:
    seeds = dict(i for batch in epoch_plan(**plan) for i in batch)
    other = dict(i for batch in epoch_plan(**{**plan, "batch_size": 3, "shuffle": not plan["shuffle"]}) for i in batch)
    assert seeds == other
    assert all((i, seed) == item(i, plan["seed"], plan["epoch"]) for i, seed in seeds.items())
    assert len(set(seeds.values())) == len(seeds)
    assert not set(seeds.values()) & {item(i, plan["seed"], plan["epoch"] + 1)[1] for i in seeds}


def test_epochs_and_seeds_give_other_orders() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        return [i for batch in epoch_plan(100, 10, seed, epoch, shuffle=True) for i, _ in batch]

    assert len({tuple(order(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


# --- reading


def read(loader: Loader, plan: Sequence[Sequence[Item]]) -> list[Loaded]:
    try:
        return list(loader.read(plan))
    finally:
        loader.close()


def test_what_a_sample_draws_depends_on_its_seed_and_not_on_who_reads_it() -> None:
    plan = epoch_plan(12, 4, 7, 1, shuffle=True)
    runs = [read(Loader(Listed("abcdefghijkl"), workers, timeout=30), plan) for workers in (0, 2)]
    for here, there in zip(*runs, strict=True):
        assert here.indices == there.indices
        assert all(torch.equal(a["drawn"], b["drawn"]) for a, b in zip(here.samples, there.samples, strict=True))
    index, seed = plan[1][2]
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)
    assert torch.equal(Listed("abcdefghijkl")[index]["drawn"], runs[0][1].samples[2]["drawn"])


def test_reading_in_the_main_process_leaves_its_generators_alone() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    expected = float(torch.rand(())), float(np.random.rand()), random.random()
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    with pytest.raises(UnreadableInput):
        read(Loader(Listed("abc", bad=[2]), 0, timeout=1, strict=True), [[(0, 5), (1, 6)], [(2, 7)]])
    assert (float(torch.rand(())), float(np.random.rand()), random.random()) == expected


@pytest.mark.parametrize("workers", [0, 2])
def test_failures_keep_their_place_and_are_counted(workers: int) -> None:
    loader = Loader(Listed("abcdef", bad=[1, 4]), workers, timeout=30)
    batches = read(loader, [[(i, 0) for i in batch] for batch in ((0, 1, 2), (), (3,), (4,))])
    assert [batch.indices for batch in batches] == [[0, 2], [], [3], []]
    assert [list(batch.failures) for batch in batches] == [[1], [], [], [4]]
    assert loader.coverage == Coverage(5, {"b": "torn", "e": "torn"})


def test_a_strict_loader_stops_at_the_first_failure_by_name() -> None:
    loader = Loader(Listed("abcdef", bad=[1, 4]), 0, timeout=1, strict=True)
    with pytest.raises(UnreadableInput, match="^b: torn$"):
        read(loader, [[(i, 0) for i in range(6)]])


def test_a_plan_may_be_endless() -> None:
    taken = []

    def plan() -> Iterator[list[Item]]:
        while True:
            taken.append(0)
            yield [(0, 1), (1, 2)]

    batches = Loader(Listed("ab"), 0, timeout=1).read(plan())
    assert [next(batches).indices for _ in range(5)] == [[0, 1]] * 5
    assert len(taken) <= 7


def test_no_batches_is_no_work() -> None:
    assert read(Loader(Listed("ab"), 0, timeout=1), []) == []


# --- batches


def test_a_batch_stacks_tensors_and_numbers_and_lists_the_rest() -> None:
    rows = [
        {"x": torch.full((2, 3), i), "a": np.ones(2, np.uint8), "n": i, "f": np.float32(i), "s": "ab"[i]}
        for i in (0, 1)
    ]
    batch = collate([{**row, "l": np.int64(i), "damage": None, "b": bool(i)} for i, row in enumerate(rows)])
    assert batch["x"].shape == (2, 2, 3)
    assert batch["a"].dtype == torch.uint8
    assert batch["n"].tolist() == batch["l"].tolist() == [0, 1]
    assert batch["l"].dtype == torch.int64
    assert batch["f"].tolist() == [0.0, 1.0]
    assert batch["b"].dtype == torch.bool
    assert (batch["s"], batch["damage"]) == (["a", "b"], [None, None])


def test_samples_of_other_shapes_name_the_key_and_the_remedy() -> None:
    with pytest.raises(UserError, match=r"'clip': \[3, 4\] and \[3, 5\]; add a resize or crop"):
        collate([{"clip": torch.zeros(3, 4)}, {"clip": torch.zeros(3, 5)}])


@pytest.mark.parametrize("order", [1, -1])
def test_samples_with_other_keys_are_refused(order: int) -> None:
    with pytest.raises(UserError, match="only some have 'time'"):
        collate([{"x": 1}, {"x": 1, "time": 2}][::order])


def test_what_is_a_number_in_some_samples_only_stays_a_list() -> None:
    assert collate([{"label": 1}, {"label": None}])["label"] == [1, None]
    assert collate([{"x": torch.zeros(1)}, {"x": None}])["x"][1] is None


@given(st.lists(st.integers(1, 3), max_size=12))
def test_runs_of_one_shape_keep_order_and_lose_nothing(widths: list[int]) -> None:
    samples = [{"x": torch.zeros(width), "n": 1} for width in widths]
    runs = list(same_shapes(Loaded(samples, list(range(len(widths))), {})))
    assert [index for _, indices in runs for index in indices] == list(range(len(widths)))
    shapes = [{len(sample["x"]) for sample in part} for part, _ in runs]
    assert all(len(shape) == 1 for shape in shapes)
    assert all(a != b for a, b in zip(shapes, shapes[1:], strict=False))


# --- coverage


def test_coverage_says_what_was_read_and_the_commonest_reasons() -> None:
    assert str(Coverage(4)) == "read 4 of 4 inputs"
    reasons = {"a": "torn", "b": "empty", "c": "torn", "d": "late", "e": "odd"}
    text = str(Coverage(9, reasons, {"f": "cut off"}))
    assert text.startswith("read 4 of 9 inputs, 1 of them damaged (their good part was used); 5 unreadable (2 x torn; ")
    assert text.count(";") == 3


def test_coverage_adds_up_over_processes() -> None:
    whole = Coverage(2, {"a": "torn"}, {})
    whole.merge(Coverage(3, {"b": "torn"}, {"c": "cut off"}))
    assert whole == Coverage(5, {"a": "torn", "b": "torn"}, {"c": "cut off"})
