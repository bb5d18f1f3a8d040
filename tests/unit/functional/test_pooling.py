import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tag2mask.functional.pooling import (
    LEVELS,
    attended_score,
    gate,
    gated_pyramid,
    narrow_convolution,
    pyramid,
    size_penalty,
    softmax_masks,
    weighted_score,
)

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import gpp_oracle

SIZES = [(32, 16), (5, 9), (20, 13)]
"""Map sizes with and without equal regions at every level, and one below the finest level."""


def kernels(num: int, *, negative: bool = True) -> list[Tensor]:
    return [torch.randn(4 if negative else 2, 2 * num, 3, 3).double() for _ in range(3)]


def pairs(weights: list[Tensor]) -> list[tuple[np.ndarray, np.ndarray | None]]:
    return [
        (weight[:2].numpy(), weight[2:].numpy() if len(weight) == 4 else None) for weight in weights
    ]


@pytest.mark.parametrize("size", SIZES)
def test_levels_are_region_means_resized_to_the_map(size: tuple[int, int]) -> None:
    cam = torch.randn(1, 2, *size).double()
    for level, side in zip(pyramid(cam, LEVELS), (2, 4, 8, 16), strict=True):
        for actual, plane in zip(level[0], cam[0].numpy(), strict=True):
            by_hand = gpp_oracle.enlarged(gpp_oracle.pooled(plane, side), *size)
            torch.testing.assert_close(actual, torch.from_numpy(by_hand))


@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("size", SIZES)
def test_attention_equals_the_oracle(size: tuple[int, int], negative: bool) -> None:
    cam, weights = torch.randn(1, 3, *size).double(), kernels(3, negative=negative)
    by_hand = gpp_oracle.attention(cam[0].numpy(), pairs(weights))
    torch.testing.assert_close(gated_pyramid(cam, weights)[0], torch.from_numpy(by_hand))


@pytest.mark.parametrize("levels", [(1, 2, 4, 8), (3, 5)])
def test_attention_of_other_levels_equals_the_oracle(levels: tuple[int, ...]) -> None:
    cam, weights = torch.randn(1, 3, 16, 16).double(), kernels(3)[1 - len(levels) :]
    by_hand = gpp_oracle.attention(cam[0].numpy(), pairs(weights), levels)
    torch.testing.assert_close(gated_pyramid(cam, weights, levels)[0], torch.from_numpy(by_hand))


@pytest.mark.parametrize("parts", ["both", "positive", "negative"])
def test_score_equals_the_oracle(parts: str) -> None:
    cam, blend = torch.randn(2, 3, 4, 5).double(), torch.randn(2, 3, 4, 5).double()
    actual = attended_score(cam, blend, parts)
    for one, f, p in zip(actual, cam.numpy(), blend.numpy(), strict=True):
        torch.testing.assert_close(one, torch.from_numpy(gpp_oracle.score(f, p, parts)))


@pytest.mark.parametrize(
    ("value", "rows", "logits"),
    [
        (1.0, 4, 0.34375),  # half gates: 1/2 (1/2 + 1/2), then 1/2 (1/4 + 1/2), then + 1/2 again
        (-2.0, 4, -1.375),  # attention -0.6875
        (-2.0, 2, -4.0),  # beta = 1: negative activations have weight 1
    ],
)
def test_constant_map_with_gates_of_one_half_by_hand(
    value: float, rows: int, logits: float
) -> None:
    cam = torch.full((1, 1, 8, 8), value)
    blend = gated_pyramid(cam, [torch.zeros(rows, 2, 3, 3)] * 3)
    torch.testing.assert_close(attended_score(cam, blend), torch.tensor([[logits]]))


def test_gates_of_both_signs_are_independent() -> None:
    coarse, fine = torch.rand(1, 2, 6, 6), torch.rand(1, 2, 6, 6)  # all positive
    weight = torch.randn(4, 4, 3, 3)
    other = weight.clone()
    other[2:] += 1
    torch.testing.assert_close(gate(coarse, fine, weight), gate(coarse, fine, other))
    torch.testing.assert_close(
        gate(-coarse, -fine, weight[[2, 3, 0, 1]]), -gate(coarse, fine, weight)
    )


def test_pixels_with_opposite_signs_of_cam_and_attention_score_zero() -> None:
    cam, blend = torch.rand(1, 2, 3, 3), -torch.rand(1, 2, 3, 3)
    assert attended_score(cam, blend).abs().max() == 0
    assert attended_score(-cam, -blend).abs().max() == 0


def test_softmax_masks_include_a_background() -> None:
    cam = torch.tensor([1 + math.log(3), 1.0]).view(1, 1, 1, 2)
    masks = softmax_masks(cam)
    torch.testing.assert_close(masks[0, :, 0], torch.tensor([[0.25, 0.5], [0.75, 0.5]]))
    torch.testing.assert_close(softmax_masks(cam - 1, background=0.0), masks)


def test_weighted_score_and_size_penalty_by_hand() -> None:
    scores = [1 + math.log(3), 1.0]
    cam = torch.tensor(scores).view(1, 1, 1, 2)
    masks = torch.tensor([0.75, 0.5]).view(1, 1, 1, 2)
    score = (0.75 * scores[0] + 0.5 * scores[1]) / 2.25
    assert weighted_score(cam, masks).item() == pytest.approx(score)
    assert size_penalty(masks).item() == pytest.approx(0.375**3 * math.log(0.635))


def test_penalty_is_finite_for_an_empty_mask_and_zero_for_a_full_one() -> None:
    masks = torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 3, 3)
    torch.testing.assert_close(size_penalty(masks), torch.tensor([[math.log(0.01), 0.0]]))


def test_weighted_score_is_independent_of_the_image_size_for_large_masks() -> None:
    cam = torch.full((1, 1, 40, 40), 2.0)
    masks = torch.ones_like(cam)
    assert weighted_score(cam, masks).item() == pytest.approx(2 * 1600 / 1601)


@pytest.mark.parametrize("groups", [1, 2])
def test_narrow_convolution_equals_conv2d(groups: int) -> None:
    maps = torch.rand(2, 6 * groups, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2 * groups, 6, 3, 3, dtype=torch.float64, requires_grad=True)
    actual = narrow_convolution(maps, weight, groups)
    expected = torch.nn.functional.conv2d(maps, weight, padding=1, groups=groups)
    torch.testing.assert_close(actual, expected)
    upstream = torch.randn_like(actual)
    for one, other in zip(
        torch.autograd.grad(actual, (maps, weight), upstream),
        torch.autograd.grad(expected, (maps, weight), upstream),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
