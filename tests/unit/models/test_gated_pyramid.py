import sys
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

from tag2mask.models.gated_pyramid import GatedPyramid, GPPConfig

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import gpp_oracle


@pytest.mark.parametrize("parts", ["both", "positive", "negative"])
@pytest.mark.parametrize("gate_negative", [True, False])
def test_module_equals_the_oracle(parts: str, gate_negative: bool) -> None:
    module = GatedPyramid(2, GPPConfig(parts=parts, gate_negative=gate_negative))
    cam = torch.randn(1, 2, 6, 5)
    weights = [gate.weight.detach().double().numpy() for gate in module.gates]
    kernels = [(weight[:2], weight[2:] if gate_negative else None) for weight in weights]
    blend = gpp_oracle.attention(cam[0].double().numpy(), kernels)
    attention = module(cam)
    torch.testing.assert_close(attention[0].double(), torch.from_numpy(blend), rtol=1e-4, atol=1e-5)
    score = gpp_oracle.score(cam[0].double().numpy(), blend, parts)
    torch.testing.assert_close(
        module.score(cam, attention)[0].double(), torch.from_numpy(score), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("parts", ["both", "positive", "negative"])
@pytest.mark.parametrize("gate_negative", [True, False])
def test_all_gates_and_the_cam_have_gradients(parts: str, gate_negative: bool) -> None:
    module = GatedPyramid(2, GPPConfig(parts=parts, gate_negative=gate_negative))
    cam = torch.randn(2, 2, 32, 32, requires_grad=True)
    module.score(cam, module(cam)).sum().backward()
    assert all(gate.weight.grad is not None and gate.weight.grad.any() for gate in module.gates)
    assert cam.grad is not None
    assert cam.grad.any()


@pytest.mark.parametrize(("levels", "own"), [((2, 4, 8, 16), 0.98), ((1, 2, 4, 8), 0.5)])
def test_a_level_as_fine_as_the_map_makes_the_attention_the_map(
    levels: tuple[int, ...], own: float
) -> None:
    torch.manual_seed(0)
    module, cam = GatedPyramid(6, GPPConfig(levels=levels)), torch.randn(4, 6, 16, 16)
    pairs = torch.stack([cam.flatten(), module(cam).detach().flatten()])
    correlation = torch.corrcoef(pairs)[0, 1].item()
    assert correlation > own if levels[-1] == 16 else correlation < own


@pytest.mark.parametrize("levels", [[4, 2], [2, 2], [4], [0, 2]])
def test_levels_that_do_not_ascend_from_coarse_to_fine_are_rejected(levels: list[int]) -> None:
    with pytest.raises(ValidationError, match="levels"):
        GPPConfig(levels=levels)


def test_attention_is_computed_in_full_precision_under_autocast() -> None:
    module, cam = GatedPyramid(2, GPPConfig()), torch.randn(1, 2, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = module(cam)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, module(cam))
