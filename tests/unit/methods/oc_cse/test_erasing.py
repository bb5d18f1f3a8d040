import math

import numpy as np
import torch

from tag2mask.methods.oc_cse.erasing import draw_present_class, erasing_mask


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize bilinearly without aligning corners, one pixel at a time."""
    rows, columns = values.shape
    result = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = math.floor(v), math.floor(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            dv, du = v - top, u - left
            result[y, x] = (1 - dv) * ((1 - du) * values[top, left] + du * values[top, right])
            result[y, x] += dv * ((1 - du) * values[bottom, left] + du * values[bottom, right])
    return result


def test_one_present_class_is_drawn_per_image_with_tags() -> None:
    tags = torch.tensor([[1.0, 0, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    for _ in range(50):
        one_hot = draw_present_class(tags)
        assert one_hot.sum(dim=1).tolist() == [1, 1, 0]
        assert (one_hot <= tags).all()


def test_present_classes_are_equally_likely() -> None:
    tags = torch.tensor([[1.0, 0, 1, 1]]).expand(6000, -1)
    frequency = draw_present_class(tags).mean(dim=0)
    expected = torch.tensor([1 / 3, 0, 1 / 3, 1 / 3])
    # One standard deviation is 0.006.
    torch.testing.assert_close(frequency, expected, atol=0.03, rtol=0)


def test_draw_uses_torchs_generator() -> None:
    tags = torch.ones(64, 6)
    torch.manual_seed(5)
    first, other = draw_present_class(tags), draw_present_class(tags)
    torch.manual_seed(5)
    assert torch.equal(first, draw_present_class(tags))
    assert not torch.equal(first, other)


def test_mask_equals_loops() -> None:
    cam = torch.randn(2, 3, 4, 5)
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    actual = erasing_mask(cam, one_hot, (9, 16))
    selected_cam = [cam[0, 1].double().numpy(), cam[1, 0].double().numpy()]
    large = [np.maximum(resized(values, 9, 16), 0) for values in selected_cam]
    peak = max(values.max() for values in large)
    for n in range(2):
        np.testing.assert_allclose(actual[n, 0], large[n] / (peak + 1e-5), atol=1e-6)


def test_mask_is_divided_by_the_peak_of_the_batch() -> None:
    cam = torch.stack([torch.full((1, 2, 2), 4.0), torch.full((1, 2, 2), 1.0)])
    mask = erasing_mask(cam, torch.ones(2, 1), (4, 4))
    torch.testing.assert_close(mask[0], torch.ones(1, 4, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(mask[1], torch.full((1, 4, 4), 0.25), atol=1e-4, rtol=0)


def test_gradient_flows_through_the_peak_to_the_drawn_class() -> None:
    cam = torch.randn(2, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    one_hot = torch.tensor([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda maps: erasing_mask(maps, one_hot, (6, 6)), cam)
    erasing_mask(cam, one_hot, (6, 6)).sum().backward()
    assert cam.grad is not None
    assert cam.grad[0, 1].any()
    assert cam.grad[1, 0].any()
    assert not cam.grad[0, [0, 2]].any()
    assert not cam.grad[1, 1:].any()


def test_negative_cams_erase_nothing_and_have_finite_gradients() -> None:
    cam = (-torch.rand(2, 3, 4, 4)).requires_grad_()
    mask = erasing_mask(cam, draw_present_class(torch.ones(2, 3)), (8, 8))
    assert mask.abs().max() == 0
    mask.sum().backward()
    assert cam.grad is not None
    assert torch.isfinite(cam.grad).all()
