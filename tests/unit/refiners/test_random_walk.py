import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tag2mask.refiners.random_walk import RandomWalk, RandomWalkConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import random_walk_oracle


def random_image(num=1, height=9, width=12, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (num, 3, height, width)
    return torch.randint(0, 60, size, dtype=torch.uint8, generator=generator)


def probability(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator).softmax(dim=-3)


@pytest.mark.parametrize(("radius", "sigma", "steps"), [(2, 25.0, 1), (5, 10.0, 4), (20, 40.0, 3)])
def test_walk_equals_powers_of_the_dense_matrix(radius, sigma, steps):
    image, probs = random_image(2), probability(2, 3, 2, 9, 12)
    refiner = RandomWalk(RandomWalkConfig(radius=radius, sigma=sigma, steps=steps))
    refined = refiner(image, probs)
    for n in range(2):
        for s in range(3):
            maps = probs[n, s].double().numpy()
            expected = random_walk_oracle.walk(image[n].numpy(), maps, radius, sigma, steps)
            np.testing.assert_allclose(refined[n, s].numpy(), expected, atol=1e-5)


def test_probabilities_do_not_cross_a_strong_edge():
    image = torch.zeros(1, 3, 8, 20, dtype=torch.uint8)
    image[..., 10:] = 255
    probs = torch.zeros(1, 2, 8, 20)
    probs[:, 0, :, :10] = probs[:, 1, :, 10:] = 1
    refined = RandomWalk(RandomWalkConfig(steps=30))(image, probs)
    torch.testing.assert_close(refined, probs)


def test_zero_steps_change_nothing():
    probs = probability(1, 3, 9, 12)
    torch.testing.assert_close(RandomWalk(RandomWalkConfig(steps=0))(random_image(), probs), probs)


def test_other_dtypes_are_computed_in_float32_and_inputs_are_unchanged():
    image, probs = random_image(), probability(1, 3, 9, 12).bfloat16().requires_grad_()
    before = image.clone(), probs.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = RandomWalk(RandomWalkConfig())(image, probs)
    assert refined.dtype == torch.float32
    assert not refined.requires_grad
    torch.testing.assert_close(
        refined, RandomWalk(RandomWalkConfig())(image, probs.detach().float())
    )
    assert torch.equal(image, before[0])
    assert torch.equal(probs, before[1])


@pytest.mark.parametrize("wrong", [{"radius": 0}, {"sigma": 0}, {"steps": -1}])
def test_settings_out_of_range_are_rejected(wrong):
    with pytest.raises(ValidationError):
        RandomWalkConfig(**wrong)
