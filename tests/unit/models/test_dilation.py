from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tag2mask.errors import WeightsError
from tag2mask.models.dilation import PROBE_PX, limit_stride, measure


class Shortcut(nn.Module):
    """A strided 3x3 convolution with a strided 1x1 convolution beside it, then one more 3x3."""

    def __init__(self) -> None:
        super().__init__()
        self.main = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.beside = nn.Conv2d(4, 6, 1, stride=2)
        self.next = nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, maps: Tensor) -> Tensor:
        return self.next((self.main(maps) + self.beside(maps)).relu())


class Outside(nn.Module):
    """A convolution that is padded outside of it, by a rule that knows of no dilation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(6, 5, 3)

    def forward(self, maps: Tensor) -> Tensor:
        return self.convolution(nn.functional.pad(maps, (1, 1, 1, 1)))


def plain_network() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(3, 4, 7, stride=2, padding=3),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        Shortcut(),
        Outside(),
    )


def limited(limit: int) -> nn.Sequential:
    network = plain_network()
    limit_stride(network, network, limit)
    return network


def test_every_layer_is_found_with_its_own_strides() -> None:
    network = plain_network()
    places = [(place.before, place.after) for place in measure(network, network).values()]
    assert places == [(1, 2), (2, 4), (4, 8), (8, 16), (8, 16), (16, 16), (16, 16)]


@pytest.mark.parametrize(("limit", "every"), [(8, 2), (4, 4)])
@torch.no_grad()
def test_cells_of_the_plain_map_stand_in_the_finer_map(limit: int, every: int) -> None:
    image = torch.randn(2, 3, 96, 160)
    plain, fine = plain_network()(image), limited(limit)(image)
    assert fine.shape == (2, 5, 96 // limit, 160 // limit)
    torch.testing.assert_close(fine[:, :, ::every, ::every], plain, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_new_cells_are_what_the_plain_network_sees_of_a_shifted_image() -> None:
    """Inside the map: shifting the image by a cell of the finer map makes its odd cells even."""
    image = torch.randn(1, 3, 256, 256)
    shifted = torch.roll(image, (-8, -8), (2, 3))
    plain, fine = plain_network()(shifted), limited(8)(image)
    torch.testing.assert_close(
        fine[:, :, 1::2, 1::2][:, :, 4:-4, 4:-4], plain[:, :, 4:-4, 4:-4], atol=1e-5, rtol=1e-5
    )


@torch.no_grad()
def test_even_kernels_get_one_more_in_front() -> None:
    """Kernel 2: cell j of the finer map joins j - 1 and j, so that odd cells are the plain ones."""
    torch.manual_seed(5)
    network = nn.Sequential(nn.Conv2d(3, 4, 4, stride=4), nn.Conv2d(4, 5, 2, stride=2))
    image = torch.randn(1, 3, 64, 64)
    plain = network(image)
    limit_stride(network, network, 4)
    fine = network(image)
    assert fine.shape == (1, 5, 16, 16)
    torch.testing.assert_close(fine[:, :, 1::2, 1::2], plain, atol=1e-6, rtol=1e-6)


def test_weights_and_mode_and_statistics_stay() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, 2, 1))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    limit_stride(network, network, 2)
    assert network.training
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_nothing_changes_where_nothing_goes_beyond() -> None:
    network = plain_network()
    text = str(network)
    limit_stride(network, network, 16)
    assert str(network) == text


def test_a_pool_over_all_of_the_map_is_no_stride() -> None:
    head = nn.Sequential(nn.Conv2d(3, 4, 3, 4, 1), nn.AvgPool2d(PROBE_PX, ceil_mode=True))
    limit_stride(head, head, 4)
    assert head[0].stride == (4, 4)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.AvgPool2d(3, stride=1, padding=1)])
def test_a_pool_beyond_is_rejected_in_one_line(pool: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, 8, 1), nn.Conv2d(4, 4, 3, 2, 1), pool)
    with pytest.raises(
        WeightsError, match=r"Pool2d at stride \d+ cannot be dilated; take a larger"
    ):
        limit_stride(network, network, 8)


def test_a_network_that_pads_by_no_fixed_amount_is_rejected() -> None:
    class Odd(nn.Conv2d):
        def forward(self, maps: Tensor) -> Tensor:
            more = 2 * self.dilation[0] * maps.shape[-1]  # whatever is added, there is more
            return super().forward(nn.functional.pad(maps, (more, more, more, more)))[..., ::2, ::2]

    network = nn.Sequential(nn.Conv2d(3, 4, 3, 8, 1), Odd(4, 4, 3, stride=2))
    with pytest.raises(WeightsError, match="cannot be dilated"):
        limit_stride(network, network, 4)
