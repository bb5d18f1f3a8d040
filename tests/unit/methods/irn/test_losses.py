import pytest
import torch

from tag2mask.functional.pair_affinity import pair_labels
from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.methods.irn.losses import displacement_losses

NEAR = half_disc_offsets(3)


def test_displacement_is_right_where_ways_lead_to_one_middle():
    y, x = torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij")
    way = torch.stack([1.5 - y, 2 - x])[None]
    thing = torch.full((1, 4, 5), 3)
    foreground, background = displacement_losses(way, pair_labels(thing, NEAR), NEAR)
    assert foreground.item() == pytest.approx(0, abs=1e-6)
    assert background.item() == 0
    foreground, background = displacement_losses(way, pair_labels(thing * 0, [(0, 2)]), [(0, 2)])
    assert foreground.item() == 0
    assert background.item() == pytest.approx(1, abs=1e-4)  # 0 down, 2 to the right: mean 1
    foreground, _ = displacement_losses(way * 0, pair_labels(thing, [(0, 2)]), [(0, 2)])
    assert foreground.item() == pytest.approx(1, abs=1e-4)
