import numpy as np
import pytest
import torch

from tag_plugins_reid.tasks.pooling import Pool

MAPS = torch.rand(3, 5, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 0.5


def gem(maps, p):
    maps = np.maximum(maps.double().numpy(), 1e-6)
    return ((maps**p).sum((2, 3)) / maps[0, 0].size) ** (1 / p)


@pytest.mark.parametrize("pool", ["gem", "gem-learned"])
def test_generalized_mean_starts_at_the_power_three(pool):
    np.testing.assert_allclose(Pool(pool)(MAPS).detach(), gem(MAPS, 3), rtol=1e-5)


def test_a_learned_power_is_used_and_has_the_gradient_of_the_formula():
    pool = Pool("gem-learned")
    with torch.no_grad():
        pool.p.fill_(4.5)
    found = pool(MAPS).sum()
    found.backward()
    assert float(found) == pytest.approx(gem(MAPS, 4.5).sum(), rel=1e-5)
    step = 1e-4
    slope = (gem(MAPS, 4.5 + step).sum() - gem(MAPS, 4.5 - step).sum()) / (2 * step)
    assert float(pool.p.grad) == pytest.approx(slope, rel=1e-3)


def test_average_and_maximum_are_numpys():
    np.testing.assert_allclose(Pool("avg")(MAPS), MAPS.numpy().mean((2, 3)), rtol=1e-5)
    np.testing.assert_array_equal(Pool("max")(MAPS), MAPS.numpy().max((2, 3)))


@pytest.mark.parametrize("pool", ["gem", "gem-learned"])
def test_features_beyond_forty_do_not_overflow_in_sixteen_bits(pool):
    found = Pool(pool)(torch.full((1, 2, 3, 3), 100.0, dtype=torch.float16))
    torch.testing.assert_close(found.detach(), torch.full((1, 2), 100.0), rtol=1e-4, atol=0)


def test_an_empty_map_has_a_finite_gradient():
    maps = torch.zeros(1, 2, 3, 3, requires_grad=True)
    Pool("gem")(maps).sum().backward()
    assert maps.grad.isfinite().all()
