import sys
from pathlib import Path

import numpy as np
import pytest

from tag2mask.functional.lattice_cpu import build_cpu_lattice
from tag2mask.refiners import dense_crf_cpu
from tag2mask.refiners.dense_crf_cpu import NEVER, cpu_mean_field

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle


def scene(classes=5, lanes=8, seed=0):
    """Features of a 13 x 17 image of two noisy halves, and padded log-probabilities."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 60, (13, 17, 3))
    image[:, 8:] += 120
    points = [oracle.features(image, 2.7), oracle.features(image, 7.3, 31.0)]
    probs = generator.dirichlet(np.ones(classes), 13 * 17)
    log_probs = np.full((13 * 17, lanes), NEVER, dtype=np.float32)
    log_probs[:, :classes] = np.log(np.maximum(probs, 1e-5))
    return points, log_probs


def lattices(points):
    built = [build_cpu_lattice(p.astype(np.float32), 10**6) for p in points]
    for lattice in built:
        lattice.normalize()
    return built


@pytest.mark.parametrize(("classes", "lanes"), [(5, 8), (3, 4), (1, 4), (17, 24)])
@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_rounds_equal_the_formula_by_loops(classes, lanes, rounds):
    points, log_probs = scene(classes, lanes)
    kernels = [oracle.symmetric(oracle.lattice(p)) for p in points]
    unary = log_probs[:, :classes].astype(np.float64)
    expected = oracle.mean_field(unary, kernels, (3.0, 4.0), rounds)
    found = cpu_mean_field(log_probs, *lattices(points), (3.0, 4.0), rounds)
    np.testing.assert_allclose(found[:, :classes], expected, atol=1e-5)
    assert (found[:, classes:] == 0).all()


def test_fewer_pixels_than_a_block_and_more():
    for num in (1, dense_crf_cpu._BLOCK, dense_crf_cpu._BLOCK + 1):
        places = np.random.default_rng(0).random((num, 7)).astype(np.float32)
        near, far = lattices([places[:, :2], places[:, 2:]])
        found = cpu_mean_field(np.zeros((num, 4), np.float32), near, far, (3.0, 4.0), 3)
        np.testing.assert_allclose(found, 0.25, atol=1e-6)


def test_exponential_is_right_and_never_slowly_small():
    value = np.linspace(-59.9, 0, 20_001, dtype=np.float32)
    found = np.array([dense_crf_cpu._exp(np.float32(v)) for v in value])
    np.testing.assert_allclose(found, np.exp(value.astype(np.float64)), rtol=4e-7)
    for least in (-60.1, -200, -1e30):
        assert dense_crf_cpu._exp(np.float32(least)) == 0


def test_strong_weights_stay_finite():
    points, log_probs = scene()
    found = cpu_mean_field(log_probs, *lattices(points), (500.0, 500.0), 4)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


def test_one_compilation_serves_every_size():
    for lanes in (4, 8):
        points, log_probs = scene(3, lanes)
        cpu_mean_field(log_probs, *lattices(points), (3.0, 4.0), 2)
    assert len(dense_crf_cpu._exchange.signatures) == 1
    assert len(dense_crf_cpu._finish.signatures) == 1
