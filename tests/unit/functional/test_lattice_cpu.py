import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tag2mask.errors import DataError
from tag2mask.functional import lattice_cpu
from tag2mask.functional.lattice_cpu import build_cpu_lattice, kernel_gain, key_layout

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle

ENOUGH = 10**6
NEW_PROCESS = """
from tag2mask.functional import lattice_cpu
import numpy as np
lattice = lattice_cpu.build_cpu_lattice(np.random.rand(50, 5).astype(np.float32), 1000)
lattice.normalize()
print(sum(sum(getattr(lattice_cpu, name).stats.cache_misses.values())
      for name in ("_extent", "_fill", "_neighbors", "_splat", "_blur", "_slice")))
"""


def cloud(num, d, spread=4.0, seed=0):
    return (spread * np.random.default_rng(seed).random((num, d))).astype(np.float32)


@pytest.mark.parametrize(("num", "d", "spread"), [(150, 2, 6), (120, 5, 2), (60, 5, 9), (1, 2, 1)])
def test_filter_equals_loops_over_the_lattice(num, d, spread):
    points = cloud(num, d, spread)
    values = cloud(num, 3, 1, seed=1)
    expected = oracle.lattice(points.astype(np.float64)) @ values
    actual = build_cpu_lattice(points, ENOUGH).filter(values)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("d", [2, 5])
def test_normalized_filter_equals_loops_over_the_lattice(d):
    points, values = cloud(100, d, 3), cloud(100, 4, 1, seed=1)
    kernel = oracle.symmetric(oracle.lattice(points.astype(np.float64)))
    lattice = build_cpu_lattice(points, ENOUGH)
    lattice.normalize()
    np.testing.assert_allclose(lattice.filter(values), kernel @ values, atol=2e-5)


@pytest.mark.parametrize(("d", "tolerance"), [(2, 0.05), (5, 0.15)])
def test_filter_approximates_a_gaussian(d, tolerance):
    points = cloud(400, d, 3)
    values = cloud(400, 2, 1, seed=1)
    expected = oracle.symmetric(oracle.gaussian(points.astype(np.float64))) @ values
    lattice = build_cpu_lattice(points, ENOUGH)
    lattice.normalize()
    error = np.abs(lattice.filter(values) - expected).max()
    assert error < tolerance * np.abs(expected).max()


def test_weights_sum_to_one_and_neighbors_are_mutual():
    lattice = build_cpu_lattice(cloud(300, 5), ENOUGH)
    np.testing.assert_allclose(lattice.weight.sum(axis=1), 1, atol=1e-5)
    assert lattice.weight.min() > -1e-5
    assert lattice.index.max() == lattice.corners - 1
    for near in lattice.near:
        with_neighbor = np.flatnonzero(near[:, 0] < lattice.corners)
        assert len(with_neighbor)
        np.testing.assert_array_equal(near[near[with_neighbor, 0], 1], with_neighbor)


def test_distant_points_do_not_interact_and_the_table_grows():
    axis = 100 * np.arange(60, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis), axis=2).reshape(-1, 2)
    lattice = build_cpu_lattice(points, ENOUGH)
    assert lattice.corners == 3 * len(points)
    values = cloud(len(points), 1, 1)
    gain = (lattice.filter(values) / values)[:, 0]
    own = (lattice.weight**2).sum(axis=1) * kernel_gain(2)
    assert (gain >= own).all()
    assert gain.max() <= 1 + 1e-5
    lattice.normalize()
    np.testing.assert_allclose(lattice.filter(values), values, rtol=1e-4)


def test_equal_points_get_equal_values():
    lattice = build_cpu_lattice(np.ones((7, 5), dtype=np.float32), ENOUGH)
    assert lattice.corners == 6
    lattice.normalize()
    np.testing.assert_allclose(
        lattice.filter(np.arange(7, dtype=np.float32)[:, None]), 3.0, rtol=1e-5
    )


def test_too_many_corners_for_the_memory_are_rejected():
    points = 100 * cloud(50, 2)
    assert build_cpu_lattice(points, 150).corners == 150
    with pytest.raises(DataError, match="more than the 149 corners"):
        build_cpu_lattice(points, 149)


def test_kernel_too_narrow_for_64_bit_keys_is_rejected():
    with pytest.raises(DataError, match="widen the kernel"):
        build_cpu_lattice(cloud(3, 5, spread=1e6), ENOUGH)


def test_keys_leave_room_for_steps_and_start_at_zero():
    stride, origin = key_layout([-2.0, 0.5, 9.0], [1.5, 3.0, 9.0])
    assert stride.tolist() == [1, 23, 0]  # 23 values from -11 to 11
    assert origin == 11 + 23 * 9  # the smallest key, (-11, -9), is 0


def test_functions_are_compiled_once_for_all_sizes():
    for num, d, channels in ((5, 2, 1), (9, 5, 3), (1, 5, 8)):
        lattice = build_cpu_lattice(cloud(num, d), ENOUGH)
        lattice.filter(cloud(num, channels))
    for name in ("_extent", "_fill", "_neighbors", "_splat", "_blur", "_slice"):
        assert len(getattr(lattice_cpu, name).signatures) == 1


@pytest.mark.slow
def test_concurrent_compilations_leave_a_usable_cache(tmp_path):
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    command = [sys.executable, "-c", NEW_PROCESS]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) for _ in range(2)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.strip() == "0"
