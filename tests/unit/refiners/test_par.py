import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tag2mask.refiners.par import (
    PAR,
    ParConfig,
    neighbor_offsets,
    par_iterate,
    par_kernel,
    position_weights,
    torch_iterate,
    torch_kernel,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import par_oracle

ABLATION = [
    ParConfig(),
    ParConfig(position=False),
    ParConfig(dilations=(1, 2, 4)),
    ParConfig(w1=0.5, w2=0.7, w3=0.03),
]


def random_image(num=1, height=11, width=14, seed=0):
    """Return noise with a constant patch, and a channel that is constant except for one pixel."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 256, (num, 3, height, width), dtype=torch.uint8, generator=generator)
    image[:, :, 2:9, 3:10] = 90
    image[:, 0] = 30
    image[:, 0, 4, 5] = 200
    return image


def probability(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator).softmax(dim=-3)


@pytest.mark.parametrize("config", ABLATION)
def test_kernel_and_iterations_equal_the_formula_by_loops(config):
    image, maps = random_image(), probability(1, 2, 11, 14)
    switches = {name: getattr(config, name) for name in ("dilations", "w1", "w2", "w3", "position")}
    expected = par_oracle.kernel(image[0].double().numpy() / 255, **switches)
    kernel = par_kernel(image, config)
    np.testing.assert_allclose(kernel[0].numpy(), expected, atol=1e-5)
    averaged = par_oracle.iterate(maps[0].double().numpy(), expected, config.dilations, 3)
    actual = par_iterate(maps, kernel, config.dilations, 3)
    np.testing.assert_allclose(actual[0].numpy(), averaged, atol=1e-5)


@pytest.mark.parametrize("config", ABLATION)
def test_torch_version_equals_the_compiled_one(config):
    image, maps = random_image(2, 33, 47), probability(2, 5, 33, 47)
    position = config.w3 * config.position * position_weights(config.dilations, config.w2)
    kernel = par_kernel(image, config)
    offsets = neighbor_offsets(config.dilations)
    torch.testing.assert_close(
        torch_kernel(image, offsets, config.w1, position), kernel, atol=2e-6, rtol=0
    )
    torch.testing.assert_close(
        torch_iterate(maps, kernel, config.dilations, 4),
        par_iterate(maps, kernel, config.dilations, 4),
        atol=2e-6,
        rtol=0,
    )


def test_position_weights_have_the_values_of_the_specification():
    distance = [np.hypot(dy, dx) for dy, dx in neighbor_offsets(ParConfig().dilations)]
    assert np.std(distance, ddof=1) == pytest.approx(9.9003, abs=5e-5)
    weight = position_weights(ParConfig().dilations, 0.3).view(6, 8).sum(dim=1)
    np.testing.assert_allclose(weight[:3], [0.579, 0.356, 0.065], atol=5e-4)
    assert weight[3:].sum() < 1e-3


def test_kernel_sums_to_one_plus_w3():
    rows = par_kernel(random_image(), ParConfig()).sum(dim=1)
    torch.testing.assert_close(rows, torch.full_like(rows, 1.01))
    rows = par_kernel(random_image(), ParConfig(position=False)).sum(dim=1)
    torch.testing.assert_close(rows, torch.ones_like(rows))


@pytest.mark.parametrize("rounds", [1, 10, 15])
def test_each_iteration_multiplies_the_sum_over_classes_by_one_plus_w3(rounds):
    config = ParConfig()
    grown = par_iterate(
        probability(1, 3, 11, 14), par_kernel(random_image(), config), config.dilations, rounds
    )
    total = grown.sum(dim=1)
    torch.testing.assert_close(total, torch.full_like(total, 1.01**rounds))


def test_refiner_normalizes_the_result_of_the_iterations():
    config = ParConfig(iterations=4)
    image, probs = random_image(), probability(1, 3, 11, 14)
    plain = par_iterate(probs, par_kernel(image, config), config.dilations, 4)
    torch.testing.assert_close(PAR(config)(image, probs), plain / 1.01**4)


def test_zero_iterations_change_nothing():
    probs = probability(1, 3, 11, 14)
    torch.testing.assert_close(PAR(ParConfig(iterations=0))(random_image(), probs), probs)


def test_rough_boundary_moves_to_the_edge_of_the_image():
    image = torch.full((1, 3, 24, 40), 40, dtype=torch.uint8)
    image[..., 20:] = 210
    cam = torch.full((1, 1, 24, 40), 0.4)
    cam[..., :14] = 0.6
    refined = PAR(ParConfig())(image, torch.cat([1 - cam, cam], dim=1)).argmax(dim=1)
    assert refined[..., :20].all()
    assert not refined[..., 20:].any()


def test_iterations_only_scale_a_constant_map():
    config = ParConfig()
    constant = torch.full((1, 1, 11, 14), 0.25)
    grown = par_iterate(constant, par_kernel(random_image(), config), config.dilations, 10)
    torch.testing.assert_close(grown, constant * 1.01**10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype):
    image, probs = random_image(), probability(1, 3, 11, 14).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = PAR(ParConfig())(image, probs)
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined, PAR(ParConfig())(image, probs.float()))


def test_result_has_no_gradient():
    probs = probability(1, 3, 11, 14).requires_grad_()
    assert not PAR(ParConfig())(random_image(), probs).requires_grad


def test_inputs_are_unchanged():
    image, probs = random_image(), probability(1, 3, 11, 14)
    before = image.clone(), probs.clone()
    PAR(ParConfig())(image, probs)
    assert torch.equal(image, before[0])
    assert torch.equal(probs, before[1])


@pytest.mark.parametrize(
    "wrong",
    [
        {"dilations": ()},
        {"dilations": (0, 1)},
        {"iterations": -1},
        {"w1": 0},
        {"w2": -1},
        {"w3": -0.1},
    ],
)
def test_settings_out_of_range_are_rejected(wrong):
    with pytest.raises(ValidationError):
        ParConfig(**wrong)
