import pytest
import torch

from tag2mask.functional.pair_affinity import pair_labels
from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.methods.irn.losses import displacement_losses

NEAR = half_disc_offsets(3)


def test_loss_is_zero_if_all_displacements_point_to_one_center():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    displacement = torch.stack([1.5 - y, 2 - x])[None]
    label = torch.full((1, 4, 5), 3)
    foreground, background = displacement_losses(displacement, pair_labels(label, NEAR), NEAR)
    assert foreground.item() == pytest.approx(0, abs=1e-6)
    assert background.item() == 0
    offsets = [(0, 2)]
    empty = pair_labels(label * 0, offsets)
    foreground, background = displacement_losses(displacement, empty, offsets)
    assert foreground.item() == 0
    assert background.item() == pytest.approx(1, abs=1e-4)  # 0 down, 2 to the right: mean 1
    foreground, _ = displacement_losses(displacement * 0, pair_labels(label, [(0, 2)]), [(0, 2)])
    assert foreground.item() == pytest.approx(1, abs=1e-4)
