import numpy as np
import pytest
import torch

from tag2mask.functional.depthwise_cpu import weight_gradient

SETTINGS = [
    (5, 1, 2, 1),
    (5, 2, 0, 1),
    (3, 1, 2, 2),
    (5, 1, 4, 2),
    (3, 2, 1, 1),
]
"""Kernel, stride, padding, dilation."""


def by_definition(maps: np.ndarray, outer: np.ndarray, kernel: int, *settings: int) -> np.ndarray:
    """Sum input times output gradient over all pixels of the output, for every tap."""
    stride, padding, dilation = settings
    padded = np.pad(maps, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    result = np.zeros((maps.shape[1], 1, kernel, kernel))
    for tap_y in range(kernel):
        for tap_x in range(kernel):
            for y in range(outer.shape[2]):
                for x in range(outer.shape[3]):
                    below = padded[
                        :, :, y * stride + tap_y * dilation, x * stride + tap_x * dilation
                    ]
                    result[:, 0, tap_y, tap_x] += (below * outer[:, :, y, x]).sum(0)
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), SETTINGS)
@pytest.mark.parametrize(("channels", "size"), [(40, (9, 12)), (7, (11, 8))])
def test_gradient_equals_its_definition(
    channels: int,
    size: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    dtype: torch.dtype,
) -> None:
    maps = torch.randn(3, channels, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    reach = dilation * (kernel - 1) + 1
    sides = [(side + 2 * padding - reach) // stride + 1 for side in size]
    outer = torch.randn(3, channels, *sides).to(dtype)  # not channels-last
    ours = weight_gradient(
        maps, outer, (kernel, kernel), (stride, stride), (padding, padding), (dilation, dilation)
    )
    settings = (kernel, stride, padding, dilation)
    expected = by_definition(maps.double().numpy(), outer.double().numpy(), *settings)
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-4, rtol=1e-4)
