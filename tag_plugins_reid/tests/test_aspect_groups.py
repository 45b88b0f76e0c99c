"""Batches of pictures of about the same shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tag_core.engine.data import Part
from tag_core.errors import UnreadableInput
from tag_plugins_reid.aspect import aspect_group
from tag_plugins_reid.datasets.list_file import PictureList
from tag_plugins_reid.samplers.aspect_groups import AspectGroups

SHAPES = [(40, 10), (30, 30), (20, 40), (10, 40), (28, 30)]


class Shapes:
    """Pictures of five shapes in turn; every size is asked once."""

    def __init__(self, count: int) -> None:
        self.asked = [0] * count

    def __len__(self) -> int:
        return len(self.asked)

    def size(self, index: int) -> tuple[int, int]:
        self.asked[index] += 1
        if index == 3:
            raise UnreadableInput("3.png", "not a picture")
        return SHAPES[index % 5]


def sampler(data: Any, batch_size: int = 4, **options: Any) -> AspectGroups:
    return AspectGroups(data, batch_size, seed=1, **options)


def groups(batches: list[list[int]]) -> list[set[int]]:
    return [{aspect_group(*SHAPES[index % 5]) for index in batch} for batch in batches]


def test_every_batch_is_of_one_group_and_no_picture_comes_twice() -> None:
    batches = sampler(Shapes(100)).batches(0)
    seen = [index for batch in batches for index in batch if index != 3]
    assert len(seen) == len(set(seen))
    assert all(len(each) == 1 for each in groups([[i for i in batch if i != 3] for batch in batches]))
    assert {len(batch) for batch in batches} == {4}


def test_what_does_not_fill_a_batch_is_dropped_or_kept() -> None:
    data = Shapes(33)  # 7 high ones, 7 + 6 square ones, 13 wide ones but for the one that cannot be read
    assert len(sampler(data).batches(0)) == 1 + 3 + 3
    batches = sampler(data, drop_incomplete=False).batches(0)
    assert sorted(index for batch in batches for index in batch) == list(range(33))
    assert sorted(map(len, batches)) == [2, 3] + [4] * 7


def test_sizes_are_asked_once() -> None:
    data = Shapes(50)
    made = sampler(data)
    for epoch in range(3):
        made.batches(epoch)
    assert data.asked == [1] * 50


def test_the_same_epoch_is_the_same_and_another_one_differs() -> None:
    epochs = [sampler(Shapes(100)).batches(epoch) for epoch in range(5)]
    assert [sampler(Shapes(100)).batches(epoch) for epoch in range(5)] == epochs
    assert len({str(batches) for batches in epochs}) == 5
    assert len({str(sorted(map(sorted, batches))) for batches in epochs}) == 5  # not only in another order


def test_groups_come_mixed_not_one_after_the_other() -> None:
    order = [min(each) for each in groups(sampler(Shapes(400)).batches(0))]
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) > 10


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_share_no_picture(processes: int) -> None:
    for batch in sampler(Shapes(100), drop_incomplete=False).batches(0):
        parts = [batch[r::processes] for r in range(processes)]
        assert sorted(sum(parts, [])) == sorted(set(batch))


def test_templates_can_be_others() -> None:
    data = Shapes(40)
    batches = sampler(data, batch_size=2, templates=[0.5, 2.0]).batches(0)
    assert {aspect_group(*SHAPES[index % 5], (0.5, 2.0)) for index in batches[0] if index != 3} <= {0, 1}
    assert len(sampler(data, batch_size=20, templates=[1.0]).batches(0)) == 2


def test_sizes_of_files_are_read_from_their_headers_alone(tmp_path: Path) -> None:
    for number in range(4):
        Image.new("RGB", (40, 10 if number % 2 else 40)).save(tmp_path / f"{number}.png")
        whole = (tmp_path / f"{number}.png").read_bytes()
        (tmp_path / f"{number}.png").write_bytes(whole[:60])  # the pixels are gone
    (tmp_path / "list.txt").write_text("".join(f"{number}.png x\n" for number in range(4)))
    data = PictureList(str(tmp_path / "list.txt"))
    assert {frozenset(batch) for batch in sampler(data, batch_size=2).batches(0)} == {
        frozenset({0, 2}),
        frozenset({1, 3}),
    }
    part = Part(data, [1, 3])
    assert sorted(sampler(part, batch_size=2).batches(0)[0]) == [0, 1]


def test_what_cannot_be_made_is_refused() -> None:
    with pytest.raises(ValueError, match="no group of pictures of about one shape fills train.batch_size 64"):
        sampler(Shapes(100), batch_size=64)
    with pytest.raises(ValueError, match="templates need to be above 0"):
        sampler(Shapes(100), templates=[0.0])
    with pytest.raises(ValueError, match="needs a data set that knows the size"):
        sampler(["a", "b"], batch_size=1)
