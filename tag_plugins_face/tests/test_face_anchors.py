"""Anchors are the public implementations' prior boxes."""

from itertools import product
from math import ceil

import numpy as np
import pytest
import torch
from face_pictures import FACE_DATA

from tag_plugins_face.anchors import cached_anchors, cells, make_anchors

FAMILY = {
    "mnet": (((16, 32), (64, 128), (256, 512)), (8, 16, 32)),
    "fd1mbmnet": (((10, 20), (32, 64), (128, 256)), (8, 16, 32)),
    "rfb": (((10, 16, 24), (32, 48), (64, 96), (128, 192, 256)), (8, 16, 32, 64)),
}


def prior_boxes(height, width, sizes, strides):
    """In plain loops, as shares of the picture."""
    found = []
    for stride, of_map in zip(strides, sizes, strict=True):
        for i, j in product(range(ceil(height / stride)), range(ceil(width / stride))):
            for size in of_map:
                centre = [(j + 0.5) * stride / width, (i + 0.5) * stride / height]
                found.append([*centre, size / width, size / height])
    return np.array(found)


def priors(height, width, name):
    sizes, strides = FAMILY[name]
    found = make_anchors(cells(height, width, strides), sizes, strides)
    return (found.double() / torch.tensor([width, height, width, height])).float().numpy()


@pytest.mark.skipif(not FACE_DATA.is_dir(), reason="the shared data are not here")
@pytest.mark.parametrize("name", FAMILY)
def test_anchors_divided_by_the_pictures_size_are_the_stored_priors(name):
    with np.load(FACE_DATA / "reference" / "face_priors.npz") as stored:
        keys = [key for key in stored if key.startswith(f"{name}_")]
        assert len(keys) > 1
        for key in keys:
            first, second = map(int, key.partition("_")[2].split("x"))
            np.testing.assert_array_equal(priors(first, second, name), stored[key])


@pytest.mark.parametrize("size", [(640, 640), (1, 1), (33, 7), (10, 2000), (344, 450)])
@pytest.mark.parametrize("name", FAMILY)
def test_anchors_are_those_of_plain_loops(name, size):
    np.testing.assert_allclose(priors(*size, name), prior_boxes(*size, *FAMILY[name]), rtol=1e-6)


@pytest.mark.parametrize(("side", "count"), [(640, 16_800), (840, 29_126)])
def test_the_trainings_pictures_have_as_many_anchors_as_published(side, count):
    assert len(priors(side, side, "mnet")) == count


def test_anchors_of_one_size_are_made_once():
    sizes, strides = FAMILY["mnet"]
    grid = cells(96, 64, strides)
    assert cached_anchors(grid, sizes, strides) is cached_anchors(grid, sizes, strides)
