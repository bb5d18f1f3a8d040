from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tag2mask.errors import WeightsError
from tag2mask.models.dilation import PROBE_PX, limit_stride, measure_strides


class Shortcut(nn.Module):
    """A strided 3 x 3 convolution parallel to a strided 1 x 1 convolution, then a 3 x 3 one."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.shortcut = nn.Conv2d(4, 6, 1, stride=2)
        self.next = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.next((self.main(maps) + self.shortcut(maps)).relu())


class PaddedOutside(nn.Module):
    """A convolution that a fixed function pads, regardless of the dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(6, 5, 3)

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolution(nn.functional.pad(maps, (1, 1, 1, 1)))


def original_network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        Shortcut(),
        PaddedOutside(),
    )


def limited(limit: int) -> nn.Sequential:
    network = original_network()
    limit_stride(network, network, limit)
    return network


def test_strides_of_every_layer_are_measured() -> None:
    network = original_network()
    strides = measure_strides(network, network).values()
    assert [(stride.before, stride.after) for stride in strides] == [
        *[(1, 2), (2, 4), (4, 8), (8, 16), (8, 16), (16, 16), (16, 16)]
    ]


@pytest.mark.parametrize(("limit", "every"), [(8, 2), (4, 4)])
@torch.no_grad()
def test_finer_map_contains_the_pixels_of_the_original_map(limit: int, every: int) -> None:
    image = torch.randn(2, 3, 96, 160)
    original, fine = original_network()(image), limited(limit)(image)
    assert fine.shape == (2, 5, 96 // limit, 160 // limit)
    torch.testing.assert_close(fine[:, :, ::every, ::every], original, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_new_pixels_equal_the_original_network_on_a_shifted_image() -> None:
    """Shifting the image by one pixel of the finer map exchanges its odd and even pixels."""
    image = torch.randn(1, 3, 256, 256)
    shifted = torch.roll(image, (-8, -8), (2, 3))
    original, fine = original_network()(shifted), limited(8)(image)
    torch.testing.assert_close(
        fine[:, :, 1::2, 1::2][:, :, 4:-4, 4:-4], original[:, :, 4:-4, 4:-4], atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_even_kernels_are_padded_in_front() -> None:
    """With kernel 2, pixel j of the finer map uses j - 1 and j, so odd pixels are the original."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 5, 2, stride=2))
    image = torch.randn(1, 3, 64, 64)
    original = network(image)
    limit_stride(network, network, 4)
    fine = network(image)
    assert fine.shape == (1, 5, 16, 16)
    torch.testing.assert_close(fine[:, :, 1::2, 1::2], original, atol=1e-6, rtol=1e-6)


def test_weights_mode_and_statistics_do_not_change() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    limit_stride(network, network, 2)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_network_within_the_limit_does_not_change() -> None:
    network = original_network()
    text = str(network)
    limit_stride(network, network, 16)
    assert str(network) == text


def test_global_pooling_does_not_count_as_a_stride() -> None:
    head = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.AvgPool2d(PROBE_PX, ceil_mode=True))
    limit_stride(head, head, 4)
    assert head[0].stride == (4, 4)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(3, stride=1, padding=1)])
def test_pooling_beyond_the_limit_is_rejected_in_one_line(pool: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 8, 1), nn.Conv2d(4, 4, 3, 2, 1), pool)
    with pytest.raises(
        WeightsError, match=r"Pool2d at stride \d+ cannot be dilated; take a larger"
    ):
        limit_stride(network, network, 8)


def test_unpredictable_padding_is_rejected() -> None:
    class Odd(nn.Conv2d):
        def forward(self, maps: Tensor) -> Tensor:
            more = 2 * self.dilation[0] * maps.shape[-1]  # more than any padding
            return super().forward(nn.functional.pad(maps, (more, more, more, more)))[..., ::2, ::2]

    network = nn.Sequential(nn.Conv2d(3, 4, 3, 8, 1), Odd(4, 4, 3, stride=2))
    with pytest.raises(WeightsError, match="cannot be dilated"):
        limit_stride(network, network, 4)
