import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tag2mask.functional.cam import (
    multi_scale_cam,
    normalize_cam,
    scaled_size,
    scaled_view,
    upsample,
)


def test_normalized_cam_spans_zero_to_one_per_class_and_image() -> None:
    cam = torch.tensor([[[[2.0, 4.0], [6.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    got = normalize_cam(cam)
    np.testing.assert_allclose(got[0, 0], [[0, 0.5], [1, 0.25]], atol=1e-5)


def test_empty_cam_stays_zero() -> None:
    assert normalize_cam(torch.zeros(1, 2, 3, 3)).abs().max() == 0


def test_scaling_the_raw_cam_has_no_gradient_so_losses_cannot_shrink_it() -> None:
    raw = torch.rand(1, 1, 4, 4).add(0.1).requires_grad_()
    gain = torch.tensor(1.0, requires_grad=True)
    target = torch.rand(1, 1, 4, 4)
    (normalize_cam(raw * gain) - target).abs().sum().backward()
    assert gain.grad is not None
    assert abs(gain.grad.item()) < 1e-3


def test_cam_of_wrong_rank_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        normalize_cam(torch.zeros(3, 4))


def slow_multi_scale(network: nn.Module, image: Tensor, scales: list[float]) -> Tensor:
    """Compute one view and one class at a time."""
    size = image.shape[-2:]
    total = torch.zeros(image.shape[0], 2, *size)
    for scale in scales:
        scaled = upsample(image, scaled_size(size, scale))
        unflipped = upsample(network(scaled), size)
        flipped = upsample(network(scaled.flip(-1)).flip(-1), size)
        total += torch.maximum(unflipped, flipped).clamp_min(0)
    for n in range(len(total)):
        for c in range(2):
            smallest = total[n, c].min()
            total[n, c] = (total[n, c] - smallest) / (total[n, c].max() - smallest + 1e-5)
    return total


@pytest.mark.parametrize("reuse", [False, True])
def test_multi_scale_cam_equals_one_view_at_a_time(reuse: bool) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 5, stride=4, padding=2)
    image = torch.randn(2, 3, 33, 47)
    with torch.no_grad():
        known_cam = network(image) if reuse else None
        got = multi_scale_cam(network, image, [1.0, 0.5, 1.5], known_cam=known_cam)
        torch.testing.assert_close(got, slow_multi_scale(network, image, [1.0, 0.5, 1.5]))


def test_known_cam_is_not_computed_again() -> None:
    pixels = []

    def compute_cam(image: Tensor) -> Tensor:
        pixels.append(image.shape[0] * image.shape[-1] * image.shape[-2])
        return image[:, :1]

    image = torch.randn(1, 3, 32, 32)
    multi_scale_cam(compute_cam, image, [1.0, 0.5, 1.5], known_cam=image[:, :1])
    assert sum(pixels) == 1024 * (1 + 2 * 0.25 + 2 * 2.25)


@pytest.mark.parametrize("flip", [True, False])
def test_maps_of_selected_classes_equal_those_among_all_classes(flip: bool) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 5, 5, stride=4, padding=2)
    image, class_indices = torch.randn(2, 3, 33, 47), torch.tensor([[0, 3], [4, 1]])
    with torch.no_grad():
        known_cam = network(image)
        arguments = {"flip": flip, "known_cam": known_cam}
        all_classes = multi_scale_cam(network, image, [1.0, 0.5], **arguments)
        got = multi_scale_cam(network, image, [1.0, 0.5], class_indices=class_indices, **arguments)
    assert got.shape == (2, 2, 33, 47)
    for n in range(2):
        assert torch.equal(got[n], all_classes[n, class_indices[n]])


def test_empty_list_of_scales_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        multi_scale_cam(lambda image: image, torch.zeros(1, 3, 8, 8), [])


def test_maps_of_the_asked_size_are_returned_as_they_are() -> None:
    maps = torch.rand(1, 2, 3, 5)
    assert upsample(maps, (3, 5)) is maps
    assert upsample(maps, (3, 6)).shape == (1, 2, 3, 6)
    assert upsample(maps, (6, 5)).shape == (1, 2, 6, 5)


def test_an_image_at_scale_one_is_not_resized() -> None:
    image = torch.rand(1, 3, 4, 6)
    assert scaled_view(image, 1.0) is image
    assert scaled_view(image, 2.0).shape == (1, 3, 8, 12)


def test_a_scaled_size_is_rounded_down_to_one_pixel_at_least() -> None:
    assert scaled_size((9, 7), 0.5) == (4, 3)
    assert scaled_size((1, 1), 0.5) == (1, 1)


def test_scales_are_one_a_half_and_one_and_a_half_with_flips_by_default() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 5, stride=4, padding=2)
    image = torch.randn(1, 3, 32, 24)
    with torch.no_grad():
        expected = slow_multi_scale(network, image, [1.0, 0.5, 1.5])
        torch.testing.assert_close(multi_scale_cam(network, image), expected)


def test_a_nearly_flat_map_is_divided_by_its_maximum_plus_the_constant() -> None:
    cam = torch.tensor([[[[1e-5, 3e-5]]]])
    torch.testing.assert_close(normalize_cam(cam), torch.tensor([[[[0.0, 2 / 3]]]]))
