import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from tag2mask.errors import DataError
from tag2mask.functional.lattice import (
    bilateral_features,
    bilateral_filter,
    corner_limit,
    in_threads,
    position_features,
    torch_bilateral_filter,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle


def random_image(num=1, height=9, width=11, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (num, 3, height, width), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32, torch.float64])
def test_features_are_position_and_color_divided_by_their_widths(dtype):
    image = random_image()
    expected = oracle.features(image[0].permute(1, 2, 0).numpy(), 2.7, 14.0)
    actual = bilateral_features(image[0].to(dtype), 2.7, 14.0)
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    position = position_features(9, 11, 2.7, torch.device("cpu"))
    np.testing.assert_allclose(position, expected[:, :2], rtol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_filter_of_a_batch_equals_loops_over_the_lattice(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    image, values = random_image(3), torch.rand(3, 4, 9, 11)
    actual = bilateral_filter(values, image, 5.3, 41.0)
    for n in range(3):
        points = oracle.features(image[n].permute(1, 2, 0).numpy(), 5.3, 41.0)
        expected = oracle.lattice(points) @ values[n].flatten(1).T.numpy()
        np.testing.assert_allclose(actual[n].flatten(1).T, expected, rtol=1e-4, atol=1e-5)


def test_torch_filter_equals_the_compiled_filter():
    image, values = random_image(3), torch.rand(3, 4, 9, 11)
    torch.testing.assert_close(
        torch_bilateral_filter(values, image, 5.3, 41.0, memory_mib=10),
        bilateral_filter(values, image, 5.3, 41.0),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("run", [bilateral_filter, torch_bilateral_filter])
def test_forty_million_pixels_are_rejected_with_the_limit_in_the_message(run):
    image = torch.zeros(1, 3, 1, 1, dtype=torch.uint8).expand(-1, -1, 8000, 5000)
    values = torch.zeros(1, 1, 1, 1).expand(-1, 21, 8000, 5000)
    with pytest.raises(DataError, match=r"40\.0 million pixels .* the limit is 4096 MiB"):
        run(values, image, 50.0, 15.0, 4096)


def test_corners_get_the_memory_that_pixels_leave():
    arguments = {"simplex": 9, "floats": 10, "channels": 4, "on_cpu": True}
    assert corner_limit(2**20, **arguments, memory_mib=112 + 168) == 2**20
    assert corner_limit(2**20, **arguments, memory_mib=113) == 2**20 // 168
    with pytest.raises(DataError, match="need 112 MiB and the limit is 112 MiB"):
        corner_limit(2**20, **arguments, memory_mib=112)


def test_threads_share_the_tasks_and_errors_are_raised(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    barrier, finished = threading.Barrier(2, timeout=10), []

    def task(number):
        barrier.wait()
        finished.append(number)

    in_threads(task, 4)
    assert sorted(finished) == [0, 1, 2, 3]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / (number - 2), 4)
