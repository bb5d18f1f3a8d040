import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tag2mask.functional.cam import multi_scale_cam, normalize_cam, scaled_size, upsample


def test_normalized_map_spans_zero_to_one_per_class_and_image() -> None:
    cam = torch.tensor([[[[2.0, 4.0], [6.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]])
    got = normalize_cam(cam)
    np.testing.assert_allclose(got[0, 0], [[0, 0.5], [1, 0.25]], atol=1e-5)


def test_empty_map_stays_zero() -> None:
    assert normalize_cam(torch.zeros(1, 2, 3, 3)).abs().max() == 0


def test_scaling_the_raw_map_gives_no_gradient_so_that_losses_cannot_shrink_it() -> None:
    raw = torch.rand(1, 1, 4, 4).add(0.1).requires_grad_()
    gain = torch.tensor(1.0, requires_grad=True)
    target = torch.rand(1, 1, 4, 4)
    (normalize_cam(raw * gain) - target).abs().sum().backward()
    assert gain.grad is not None
    assert abs(gain.grad.item()) < 1e-3


def test_a_map_of_wrong_rank_is_rejected() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\)"):
        normalize_cam(torch.zeros(3, 4))


def slow_multi_scale(network: nn.Module, image: Tensor, scales: list[float]) -> Tensor:
    """One view at a time, one class at a time."""
    size = image.shape[-2:]
    total = torch.zeros(image.shape[0], 2, *size)
    for scale in scales:
        view = upsample(image, scaled_size(size, scale))
        upright = upsample(network(view), size)
        mirrored = upsample(network(view.flip(-1)).flip(-1), size)
        total += torch.maximum(upright, mirrored).clamp_min(0)
    for n in range(len(total)):
        for c in range(2):
            low = total[n, c].min()
            total[n, c] = (total[n, c] - low) / (total[n, c].max() - low + 1e-5)
    return total


@pytest.mark.parametrize("reuse", [False, True])
def test_multi_scale_map_equals_one_view_at_a_time(reuse: bool) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 2, 5, stride=4, padding=2)
    image = torch.randn(2, 3, 33, 47)
    with torch.no_grad():
        known = network(image) if reuse else None
        got = multi_scale_cam(network, image, [1.0, 0.5, 1.5], known=known)
        torch.testing.assert_close(got, slow_multi_scale(network, image, [1.0, 0.5, 1.5]))


def test_known_cam_saves_the_upright_view_at_scale_one() -> None:
    seen = []

    def cam_of(view: Tensor) -> Tensor:
        seen.append(view.shape[0] * view.shape[-1] * view.shape[-2])
        return view[:, :1]

    image = torch.randn(1, 3, 32, 32)
    multi_scale_cam(cam_of, image, [1.0, 0.5, 1.5], known=image[:, :1])
    assert sum(seen) == 1024 * (1 + 2 * 0.25 + 2 * 2.25)


@pytest.mark.parametrize("flip", [True, False])
def test_maps_of_chosen_classes_are_the_same_as_among_all(flip: bool) -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 5, 5, stride=4, padding=2)
    image, keys = torch.randn(2, 3, 33, 47), torch.tensor([[0, 3], [4, 1]])
    with torch.no_grad():
        known = network(image)
        whole = multi_scale_cam(network, image, [1.0, 0.5], flip=flip, known=known)
        got = multi_scale_cam(network, image, [1.0, 0.5], flip=flip, known=known, keys=keys)
    assert got.shape == (2, 2, 33, 47)
    for single_image in range(2):
        assert torch.equal(got[single_image], whole[single_image, keys[single_image]])


def test_no_scale_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one scale"):
        multi_scale_cam(lambda view: view, torch.zeros(1, 3, 8, 8), [])
