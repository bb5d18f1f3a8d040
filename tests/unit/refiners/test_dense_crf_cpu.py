import sys
from pathlib import Path

import numpy as np
import pytest

from tag2mask.functional.lattice_cpu import build_cpu_lattice
from tag2mask.refiners import dense_crf_cpu
from tag2mask.refiners.dense_crf_cpu import PADDING_LOG_PROB, cpu_mean_field

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle


def scene(classes=5, lanes=8, seed=0):
    """Return features of a noisy 13 x 17 image of two colors, and padded log-probabilities."""
    generator = np.random.default_rng(seed)
    image = generator.integers(0, 60, (13, 17, 3))
    image[:, 8:] += 120
    points = [oracle.features(image, 2.7), oracle.features(image, 7.3, 31.0)]
    probs = generator.dirichlet(np.ones(classes), 13 * 17)
    log_probs = np.full((13 * 17, lanes), PADDING_LOG_PROB, dtype=np.float32)
    log_probs[:, :classes] = np.log(np.maximum(probs, 1e-5))
    return points, log_probs


def lattices(points):
    built = [build_cpu_lattice(p.astype(np.float32), 10**6) for p in points]
    for lattice in built:
        lattice.normalize()
    return built


@pytest.mark.parametrize(("classes", "lanes"), [(5, 8), (3, 4), (1, 4), (17, 24)])
@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
def test_iterations_equal_the_formula_by_loops(classes, lanes, rounds):
    points, log_probs = scene(classes, lanes)
    kernels = [oracle.symmetric(oracle.lattice(p)) for p in points]
    unary = log_probs[:, :classes].astype(np.float64)
    expected = oracle.mean_field(unary, kernels, (3.0, 4.0), rounds)
    actual = cpu_mean_field(log_probs, *lattices(points), (3.0, 4.0), rounds)
    np.testing.assert_allclose(actual[:, :classes], expected, atol=1e-5)
    assert (actual[:, classes:] == 0).all()


def test_number_of_pixels_need_not_be_a_multiple_of_the_block():
    for num in (1, dense_crf_cpu._BLOCK, dense_crf_cpu._BLOCK + 1):
        features = np.random.default_rng(0).random((num, 7)).astype(np.float32)
        near, far = lattices([features[:, :2], features[:, 2:]])
        actual = cpu_mean_field(np.zeros((num, 4), np.float32), near, far, (3.0, 4.0), 3)
        np.testing.assert_allclose(actual, 0.25, atol=1e-6)


def test_exponential_is_accurate_and_never_denormal():
    value = np.linspace(-59.9, 0, 20_001, dtype=np.float32)
    actual = np.array([dense_crf_cpu._exp(np.float32(v)) for v in value])
    np.testing.assert_allclose(actual, np.exp(value.astype(np.float64)), rtol=4e-7)
    for value in (-60.1, -200, -1e30):
        assert dense_crf_cpu._exp(np.float32(value)) == 0


def test_results_stay_finite_for_large_weights():
    points, log_probs = scene()
    actual = cpu_mean_field(log_probs, *lattices(points), (500.0, 500.0), 4)
    np.testing.assert_allclose(actual.sum(axis=1), 1, atol=1e-5)


def test_functions_are_compiled_once_for_all_sizes():
    for lanes in (4, 8):
        points, log_probs = scene(3, lanes)
        cpu_mean_field(log_probs, *lattices(points), (3.0, 4.0), 2)
    assert len(dense_crf_cpu._exchange.signatures) == 1
    assert len(dense_crf_cpu._finish.signatures) == 1
