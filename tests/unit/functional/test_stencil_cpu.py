import pytest
import torch

from tag2mask.functional import stencil_cpu
from tag2mask.functional.stencil import disc_offsets, torch_walk
from tag2mask.functional.stencil_cpu import cpu_walk


def weights(num, offsets, height, width):
    """Return random normalized weights, 0 for neighbors outside."""
    generator = torch.Generator().manual_seed(0)
    walk = torch.rand(num, len(offsets), height, width, generator=generator)
    for tap, (dy, dx) in enumerate(offsets):
        y, x = torch.arange(height)[:, None] + dy, torch.arange(width) + dx
        walk[:, tap] *= (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return walk / walk.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("radius", [1, 2, 5])  # 5, 13, 81 neighbors: groups of four and a remainder
@pytest.mark.parametrize("size", [(9, 12), (1, 1), (3, 20)])
def test_compiled_walk_equals_plain_torch(radius, size):
    offsets = disc_offsets(radius)
    maps, walk = torch.rand(2, 3, *size), weights(2, offsets, *size)
    actual, expected = (fn(maps, walk, offsets, 4) for fn in (cpu_walk, torch_walk))
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def test_zero_steps_change_nothing_and_the_input_is_kept():
    offsets = disc_offsets(2)
    maps, walk = torch.rand(1, 2, 6, 7), weights(1, offsets, 6, 7)
    before = maps.clone(), walk.clone()
    assert torch.equal(cpu_walk(maps, walk, offsets, 0), maps)
    cpu_walk(maps, walk, offsets, 3)
    assert torch.equal(maps, before[0])
    assert torch.equal(walk, before[1])


def test_step_is_compiled_once_for_all_sizes_and_layouts():
    for height, width in ((5, 7), (16, 3)):
        offsets = disc_offsets(1)
        maps = torch.rand(1, 2, width, height).transpose(2, 3)
        cpu_walk(maps, weights(1, offsets, height, width), offsets, 1)
    assert len(stencil_cpu._step.signatures) == 1
