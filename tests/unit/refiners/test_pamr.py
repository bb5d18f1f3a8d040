import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tag2mask.refiners.pamr import PAMR, PAMRConfig, pamr_kernel

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import pamr_oracle
import par_oracle


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


@pytest.mark.parametrize(
    "config", [PAMRConfig(), PAMRConfig(dilations=(1, 3)), PAMRConfig(width=0.4)]
)
def test_kernel_and_refined_probabilities_equal_the_formula_by_loops(config):
    image, probs = random_image(2), probability(2, 3, 2, 11, 14)
    refined = PAMR(config.model_copy(update={"iterations": 3}))(image, probs)
    for n in range(2):
        expected = pamr_oracle.kernel(
            image[n].double().numpy() / 255, config.dilations, config.width
        )
        kernel = pamr_kernel(image, config.dilations, config.width)
        np.testing.assert_allclose(kernel[n].numpy(), expected, atol=1e-5)
        for s in range(3):
            averaged = par_oracle.iterate(
                probs[n, s].double().numpy(), expected, config.dilations, 3
            )
            np.testing.assert_allclose(refined[n, s].numpy(), averaged, atol=1e-5)


def test_faint_pattern_on_a_bright_background_is_computed_accurately():
    generator = torch.Generator().manual_seed(0)
    pattern = torch.randint(0, 8, (1, 3, 11, 14), generator=generator)
    image = 250 + pattern / 2**14
    expected = pamr_oracle.kernel(image[0].double().numpy() / 255, (1, 2))
    np.testing.assert_allclose(pamr_kernel(image, (1, 2), 0.1)[0].numpy(), expected, atol=1e-5)


def test_rough_boundary_moves_to_the_edge_of_the_image():
    image = torch.full((1, 3, 24, 40), 40, dtype=torch.uint8)
    image[..., 20:] = 210
    cam = torch.full((1, 1, 24, 40), 0.4)
    cam[..., :14] = 0.6
    refined = PAMR(PAMRConfig())(image, torch.cat([1 - cam, cam], dim=1)).argmax(dim=1)
    assert refined[..., :20].all()
    assert not refined[..., 20:].any()


def test_other_dtypes_are_computed_in_float32_and_inputs_are_unchanged():
    image, probs = random_image(), probability(1, 3, 11, 14).bfloat16().requires_grad_()
    before = image.clone(), probs.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = PAMR(PAMRConfig())(image, probs)
    assert refined.dtype == torch.float32
    assert not refined.requires_grad
    torch.testing.assert_close(refined, PAMR(PAMRConfig())(image, probs.detach().float()))
    assert torch.equal(image, before[0])
    assert torch.equal(probs, before[1])


@pytest.mark.parametrize(
    "wrong", [{"dilations": ()}, {"dilations": (0,)}, {"iterations": -1}, {"width": 0}]
)
def test_settings_out_of_range_are_rejected(wrong):
    with pytest.raises(ValidationError):
        PAMRConfig(**wrong)
