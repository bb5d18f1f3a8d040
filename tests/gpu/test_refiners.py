"""Refiners, walks and lattices give on a GPU what they give on the CPU."""

from typing import Any

import pytest
import torch
from tests.gpu.parity import DEVICE, on_both
from torch import Tensor

from tag2mask import plugins
from tag2mask.functional.affinity import affinity_label, pool_pairs, propagate
from tag2mask.functional.energy import dense_energy_loss
from tag2mask.functional.lattice import bilateral_filter
from tag2mask.functional.pseudo_label import propagated_label, pseudo_label, select_present_classes
from tag2mask.functional.stencil import (
    both_directions,
    color_affinity,
    half_disc_offsets,
    random_walk,
)

pytestmark = pytest.mark.gpu

SIZE = (33, 47)
SETTINGS: dict[str, dict[str, Any]] = {
    "dense_crf": {"bilateral_weight": 10, "bilateral_srgb": 13},
    "random_walk": {"steps": 8},
}


def smooth_image(count: int = 2) -> Tensor:
    """Draw colored areas with noise; neither constant nor pure noise."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (count, 3, 5, 6), generator=generator).float()
    image = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")
    noise = 8 * torch.randn(image.shape, generator=generator)
    return (image + noise).round().clamp(0, 255).to(torch.uint8)


def probability(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (3 * torch.rand(*shape, generator=generator)).softmax(dim=-3)


@pytest.mark.parametrize("name", plugins.available("refiners"))
@pytest.mark.parametrize("shape", [(2, 3, *SIZE), (2, 4, 3, *SIZE)])
def test_a_refiner_gives_the_same_probabilities(name: str, shape: tuple[int, ...]) -> None:
    kind = plugins.load("refiners", name)
    refiner = kind(kind.Config(name=name, **SETTINGS.get(name, {})))
    cpu, gpu = on_both(refiner, smooth_image(), probability(*shape))
    torch.testing.assert_close(gpu, cpu, rtol=0, atol=2e-3)
    assert (gpu.argmax(dim=-3) == cpu.argmax(dim=-3)).float().mean() > 0.998


@pytest.mark.parametrize("name", plugins.available("refiners"))
def test_autocast_does_not_change_a_refiner(name: str) -> None:
    kind = plugins.load("refiners", name)
    refiner = kind(kind.Config(name=name, **SETTINGS.get(name, {})))
    image, probs = smooth_image().to(DEVICE), probability(2, 3, *SIZE).to(DEVICE)
    plain = refiner(image, probs)
    with torch.autocast("cuda", torch.bfloat16):
        mixed = refiner(image, probs)
    assert mixed.dtype == torch.float32
    torch.testing.assert_close(mixed, plain, rtol=0, atol=1e-4)


def test_the_bilateral_filter_of_the_lattice_is_the_same() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(2, 3, *SIZE, generator=generator)
    cpu, gpu = on_both(
        lambda value, image: bilateral_filter(value, image, sxy=20, srgb=15), values, smooth_image()
    )
    torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3)


def test_the_dense_energy_and_its_gradient_are_the_same() -> None:
    label = (torch.arange(SIZE[1]) > 20).long().expand(2, *SIZE).clone()
    label[:, :6] = 255
    valid = torch.ones(2, *SIZE, dtype=torch.bool)

    def gradient(logits: Tensor, image: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        logits = logits.detach().requires_grad_()
        energy = dense_energy_loss(logits.softmax(dim=1), image, label, valid)
        (result,) = torch.autograd.grad(1e7 * energy, logits)
        return torch.cat([result.flatten(), 1e7 * energy.detach()[None]])

    cpu, gpu = on_both(gradient, torch.randn(2, 2, *SIZE), smooth_image(), label, valid)
    torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-3 * float(cpu.abs().max()))


def test_the_walk_along_a_stencil_is_the_same() -> None:
    offsets = half_disc_offsets(5)

    def walk(image: Tensor, maps: Tensor) -> Tensor:
        affinity, both = both_directions(color_affinity(image.float(), offsets, 20.0), offsets)
        return random_walk(maps, affinity, both, steps=16)

    cpu, gpu = on_both(walk, smooth_image(), torch.rand(2, 3, *SIZE))
    torch.testing.assert_close(gpu, cpu, rtol=1e-3, atol=1e-4)


def test_propagation_along_an_affinity_is_the_same() -> None:
    scores, affinity = torch.rand(2, 4, 9, 11), torch.rand(2, 99, 99)
    cpu, gpu = on_both(lambda first, second: propagate(first, second, 4), scores, affinity)
    torch.testing.assert_close(gpu, cpu, rtol=1e-4, atol=1e-5)


def test_pairs_of_labels_are_the_same() -> None:
    label = torch.randint(0, 3, (2, 36, 44))
    label[:, :8] = 255
    cpu, gpu = on_both(lambda one: affinity_label(one, (9, 11), 4), label)
    assert torch.equal(cpu, gpu)
    cpu, gpu = on_both(lambda one: pool_pairs(one.float(), (9, 11), (3, 4)), cpu)
    torch.testing.assert_close(gpu, cpu)


@pytest.mark.parametrize("propagated", [False, True])
def test_pseudo_labels_are_the_same(propagated: bool) -> None:
    kind = plugins.load("refiners", "par")
    refiner = kind(kind.Config(name="par"))
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[1, :, :12] = False
    coarse = torch.rand(2, 2, 4, 5)
    cam = torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear")

    def label(image: Tensor, cam: Tensor, tags: Tensor, valid: Tensor, affinity: Tensor) -> Tensor:
        selected = select_present_classes(tags, max_tags=2)
        if propagated:
            return propagated_label(image, cam, selected, valid, refiner, affinity, (9, 11))
        return pseudo_label(image, cam, selected, valid, refiner)

    tags = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    cpu, gpu = on_both(label, smooth_image(), cam, tags, valid, torch.rand(2, 99, 99))
    assert (cpu == gpu).float().mean() > 0.998
    assert len(cpu.unique()) > 1
