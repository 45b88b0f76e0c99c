"""P x K batches."""

from __future__ import annotations

from collections import Counter

import pytest

from tag_plugins_reid.samplers.identities import Identities


class Labels:
    """A data set of which labels alone are asked."""

    def __init__(self, *counts: int) -> None:
        self.labels = [label for label, count in enumerate(counts) for _ in range(count)]

    def __len__(self) -> int:
        return len(self.labels)

    def label(self, index: int) -> int:
        return self.labels[index]


def sampler(data: Labels, batch_size: int = 8, processes: int = 1, **options: int) -> Identities:
    return Identities(data, batch_size, seed=3, processes=processes, **options)  # type: ignore[arg-type]


def shares(data: Labels, batch: list[int], processes: int) -> list[Counter[int]]:
    """Label -> how often, of each process."""
    return [Counter(data.label(i) for i in batch[r::processes]) for r in range(processes)]


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_every_process_gets_whole_identities_with_k_pictures_each(processes: int) -> None:
    data = Labels(*range(1, 13))
    batches = sampler(data, batch_size=16, processes=processes, num_instances=4).batches(0)
    for batch in batches:
        found = shares(data, batch, processes)
        assert [sorted(count.values()) for count in found] == [[4] * (4 // processes)] * processes
        assert len(set().union(*found)) == 4  # no identity twice in a batch, nor in two processes


def test_two_processes_never_share_a_picture_even_where_some_are_repeated() -> None:
    data = Labels(*[1, 2, 3, 9] * 3)
    for epoch in range(5):
        for batch in sampler(data, batch_size=16, processes=2, num_instances=4).batches(epoch):
            assert not set(batch[0::2]) & set(batch[1::2])


def test_no_picture_comes_twice_in_an_epoch_where_identities_have_enough() -> None:
    data = Labels(4, 5, 9, 12, 4, 7)
    for epoch in range(5):
        seen = [index for batch in sampler(data, batch_size=8).batches(epoch) for index in batch]
        assert len(seen) == len(set(seen))


def test_pictures_of_unknown_identity_are_left_out() -> None:
    data = Labels(4, 4, 8, 5)
    data.labels[:4] = [-1] * 4
    seen = {index for batch in sampler(data, batch_size=8).batches(0) for index in batch}
    assert seen
    assert not seen & set(range(4))


def test_an_epoch_goes_on_until_too_few_identities_are_left() -> None:
    data = Labels(4, 5, 9, 12, 4, 7)
    for epoch in range(5):
        batches = sampler(data, batch_size=8).batches(epoch)
        used = Counter(data.label(index) for batch in batches for index in batch)
        left = [label for label, count in enumerate([4, 5, 9, 12, 4, 7]) if count - used[label] >= 4]
        assert len(left) < 2


def test_an_identity_with_too_few_pictures_is_filled_up_with_its_own() -> None:
    data = Labels(3, 3, 1)
    for epoch in range(10):
        (batch,) = sampler(data, batch_size=12).batches(epoch)
        assert set(batch) == set(range(7))  # each one, and repeated ones beside
        assert Counter(map(data.label, batch)) == {0: 4, 1: 4, 2: 4}


def test_or_left_out() -> None:
    data = Labels(3, 4, 1, 4)
    (batch,) = sampler(data, fill=False).batches(0)
    assert set(map(data.label, batch)) == {1, 3}


def test_the_same_epoch_is_the_same_and_another_one_differs() -> None:
    data = Labels(*[8] * 10)
    first = [sampler(data).batches(epoch) for epoch in range(6)]
    assert [sampler(data).batches(epoch) for epoch in range(6)] == first
    assert len({str(batches) for batches in first}) == 6
    assert Identities(data, 8, seed=4, processes=1).batches(0) != first[0]


def test_over_epochs_every_picture_comes_about_as_often() -> None:
    data = Labels(*[6] * 6)
    seen = Counter(i for epoch in range(300) for batch in sampler(data, batch_size=8).batches(epoch) for i in batch)
    # 6 identities with one chunk of 4 pictures of 6 each: 200 of 300 epochs, standard deviation about 8.
    assert min(seen.values()) > 150
    assert max(seen.values()) < 250


def test_identities_with_k_pictures_come_once_each() -> None:
    batches = sampler(Labels(*[4] * 4000), batch_size=32).batches(0)
    assert len(batches) == 500
    assert sorted(index for batch in batches for index in batch) == list(range(16000))


@pytest.mark.parametrize(
    ("batch_size", "processes", "options", "message"),
    [
        (30, 1, {}, "train.batch_size 30 cannot be divided by num_instances 4$"),
        (8, 4, {}, "train.batch_size 8 cannot be divided by num_instances 4 x 4 processes"),
        (8, 1, {"num_instances": 0}, "num_instances must be at least 1"),
        (32, 1, {}, "needs 8 identities with num_instances 4, and the training data have 3"),
        (8, 1, {"fill": False}, "needs 2 identities with 4 pictures with num_instances 4, and .* have 1"),
    ],
)
def test_what_cannot_be_made_is_refused(batch_size: int, processes: int, options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sampler(Labels(2, 3, 8), batch_size, processes, **options)
