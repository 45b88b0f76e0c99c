"""Aspect-ratio groups and their sizes."""

from __future__ import annotations

import numpy as np
import pytest

from tag_plugins_reid.aspect import SIZES, TEMPLATES, aspect_group


def test_every_template_has_a_size_of_about_its_ratio() -> None:
    for sizes in SIZES.values():
        assert len(sizes) == len(TEMPLATES) == 12
        ratios = np.array([width / height for width, height in sizes])
        np.testing.assert_allclose(ratios, TEMPLATES, rtol=0.012)


def test_turned_over_the_sizes_from_twice_as_high_to_twice_as_wide_are_the_same() -> None:
    for sizes in SIZES.values():
        assert [(height, width) for width, height in sizes[3:]] == list(reversed(sizes[3:]))


def test_the_group_is_the_nearest_template_as_numpy_finds_it() -> None:
    sides = np.random.default_rng(0).integers(1, 500, (1000, 2))
    ratios = sides[:, 1] / sides[:, 0]
    nearest = np.abs(ratios[:, None] - np.array(TEMPLATES)).argmin(1)
    assert [aspect_group(*side) for side in sides.tolist()] == nearest.tolist()


@pytest.mark.parametrize(("height", "width", "group"), [(400, 1, 0), (1, 400, 11), (5, 5, 7), (2, 1, 3)])
def test_what_is_beyond_the_templates_belongs_to_the_outermost(height: int, width: int, group: int) -> None:
    assert aspect_group(height, width) == group
