import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tag2mask.functional.energy import ENERGY_SCALE, dense_energy_loss

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle

WIDTHS = {"sxy": 6.0, "srgb": 40.0}


def scene(num=2, height=16, width=22, seed=0):
    """Return a noisy image of two colors, probabilities, labels with gaps, padding on the right."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.full((num, 3, height, width), 60.0)
    image[..., width // 2 :] = 170
    image += 12 * torch.randn(image.shape, generator=generator)
    probs = torch.rand(num, 3, height, width, generator=generator).mul(3).softmax(dim=1)
    label = torch.randint(0, 3, (num, height, width), generator=generator)
    label[:, 2:9, 3:12] = 255
    valid = torch.ones(num, height, width, dtype=torch.bool)
    valid[..., 18:] = False
    return image.clamp(0, 255).byte(), probs, label, valid


def expected_energy(image, probs, label, valid, kernel):
    """Compute the unscaled energy and the gradient of the half-size (N, C, h, w) probabilities."""
    height, width = image.shape[-2] // 2, image.shape[-1] // 2
    small = F.interpolate(probs.double(), size=(height, width), mode="bilinear")
    total, gradients = 0.0, []
    for n in range(len(image)):
        single_image = image[n, :, ::2, ::2].permute(1, 2, 0).numpy()
        roi = valid[n, ::2, ::2].numpy().ravel().astype(float)
        rows = small[n].flatten(1).T.numpy()
        weight = np.maximum(roi - rows.max(axis=1), 0)
        weight[label[n, ::2, ::2].numpy().ravel() == 255] = 1
        points = oracle.features(single_image, WIDTHS["sxy"] / 2, WIDTHS["srgb"])
        energy, gradient = oracle.energy(rows, kernel(points), weight, roi)
        total += energy / len(image)
        gradients.append(gradient.T.reshape(probs.shape[1], height, width) / len(image))
    return total, torch.from_numpy(np.stack(gradients))


def small_probs(probs):
    size = (probs.shape[-2] // 2, probs.shape[-1] // 2)
    return F.interpolate(probs, size=size, mode="bilinear").requires_grad_()


def test_energy_and_gradient_equal_loops_over_the_lattice():
    image, probs, label, valid = scene()
    energy, gradient = expected_energy(image, probs, label, valid, oracle.lattice)
    small = small_probs(probs)
    loss = dense_energy_loss(small, image, label, valid, **WIDTHS) / ENERGY_SCALE
    loss.backward()
    assert loss.item() == pytest.approx(energy, rel=1e-4)
    torch.testing.assert_close(small.grad.double(), gradient, rtol=1e-3, atol=1e-4)


def test_energy_and_gradient_equal_those_of_the_exact_kernel_up_to_a_factor():
    """In five dimensions, a point between corners keeps about half of its own contribution."""
    image, probs, label, valid = scene()
    energy, gradient = expected_energy(image, probs, label, valid, oracle.gaussian)
    small = small_probs(probs)
    loss = dense_energy_loss(small, image, label, valid, **WIDTHS) / ENERGY_SCALE
    loss.backward()
    assert loss.item() == pytest.approx(0.52 * energy, rel=0.1)
    cosine = F.cosine_similarity(small.grad.flatten().double(), gradient.flatten(), dim=0)
    assert cosine > 0.99


def test_map_that_is_constant_within_each_color_has_less_energy():
    image, _, label, valid = scene()
    label = torch.full_like(label, 255)
    confident = torch.full((2, 2, 16, 22), 0.1)
    confident[:, 0, :, :11], confident[:, 1, :, 11:] = 0.9, 0.9
    shuffled = confident.flatten(2)[..., torch.randperm(16 * 22)].view_as(confident)
    constant = dense_energy_loss(confident, image, label, valid)
    assert constant < dense_energy_loss(shuffled, image, label, valid) < 0


def test_padding_has_no_gradient_and_no_influence():
    image, probs, label, valid = scene()
    label[..., 18:] = 255
    other_image, other_probs = image.clone(), probs.clone()
    other_image[..., 18:] = 0
    other_probs[..., 18:] = other_probs[..., 18:].flip(1)
    gradients = []
    for single_image, start in ((image, probs), (other_image, other_probs)):
        start.requires_grad_()
        loss = dense_energy_loss(start, single_image, label, valid)
        loss.backward()
        assert (start.grad[..., 18:] == 0).all()
        gradients.append(start.grad[..., :18])
    # The colors of the padding still affect which corners the lattice has.
    assert (gradients[0] - gradients[1]).norm() < 0.02 * gradients[0].norm()


def test_energy_of_padding_alone_is_zero():
    image, probs, label, valid = scene()
    assert dense_energy_loss(probs, image, label, torch.zeros_like(valid)) == 0


def test_certain_pixels_with_a_label_have_no_energy():
    image, probs, label, valid = scene()
    confident = torch.zeros_like(probs)
    confident[:, 1] = 1
    assert dense_energy_loss(confident, image, label.clamp_max(2), valid) == 0
    assert dense_energy_loss(confident, image, torch.full_like(label, 255), valid) < 0


def test_energy_is_the_mean_over_images():
    image, probs, label, valid = scene()
    together = dense_energy_loss(probs, image, label, valid)
    alone = [
        dense_energy_loss(*(part[n : n + 1] for part in (probs, image, label, valid)))
        for n in range(2)
    ]
    torch.testing.assert_close(together, sum(alone) / 2)


def test_odd_sizes_small_maps_and_half_precision_are_supported():
    image, probs, label, valid = scene(height=17, width=23)
    coarse = F.interpolate(probs, size=(5, 6)).bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = dense_energy_loss(coarse, image, label, valid)
    assert loss.dtype == torch.float32
    loss.backward()
    assert coarse.grad.isfinite().all()
    assert coarse.grad.abs().sum() > 0
    one = dense_energy_loss(
        probs[..., :1, :1], image[..., :1, :1], label[:, :1, :1], valid[:, :1, :1]
    )
    assert one.isfinite()


def test_upstream_factors_reach_the_gradient():
    image, probs, label, valid = scene()
    grads = []
    for factor in (1.0, 3.0):
        start = probs.clone().requires_grad_()
        (factor * dense_energy_loss(start, image, label, valid)).backward()
        grads.append(start.grad)
    torch.testing.assert_close(grads[1], 3 * grads[0])


def test_different_sizes_are_rejected():
    image, probs, label, valid = scene()
    with pytest.raises(ValueError, match="differ in batch or size"):
        dense_energy_loss(probs, image, label[:, 1:], valid)
