import numpy as np
import pytest
import torch

from tag2mask.functional.affinity import (
    BAND_ROWS,
    affinity_label,
    affinity_loss,
    attention_affinity,
    mean_attention,
    pool_pair_logits,
    pool_pairs,
    propagate,
    radius_mask,
)
from tag2mask.types import IGNORE


def brute_force_label(label: np.ndarray, size: tuple[int, int], radius: int) -> np.ndarray:
    """Compute the labels of pairs by nested loops, as the paper defines them."""
    height, width = label.shape
    positions = [
        (y, x, label[y * height // size[0], x * width // size[1]])
        for y in range(size[0])
        for x in range(size[1])
    ]
    pairs = np.full((len(positions), len(positions)), IGNORE)
    for i, (yi, xi, a) in enumerate(positions):
        for j, (yj, xj, b) in enumerate(positions):
            if abs(yi - yj) <= radius and abs(xi - xj) <= radius and IGNORE not in (a, b):
                pairs[i, j] = int(a == b)
    return pairs


@pytest.mark.parametrize("radius", [1, 3, 8])
def test_labels_of_pairs_equal_brute_force(radius: int) -> None:
    rng = np.random.default_rng(radius)
    label = rng.choice([0, 1, 2, IGNORE], size=(96, 96))
    got = affinity_label(torch.from_numpy(label)[None], (6, 6), radius)[0].numpy()
    np.testing.assert_array_equal(got, brute_force_label(label, (6, 6), radius))


def test_radius_mask_is_a_square_window_that_includes_its_center() -> None:
    near = radius_mask(5, 7, 2)
    center = near[2 * 7 + 3].view(5, 7)
    assert center.sum() == 25
    assert center[2, 3]
    assert not center[:, 0].any()
    assert near.diagonal().all()


def test_loss_is_zero_for_a_perfect_affinity_and_nearly_one_for_its_inverse() -> None:
    label = torch.randint(0, 2, (2, 30, 30), generator=torch.Generator().manual_seed(0))
    probs = label.float()
    pairs = label.to(torch.uint8)
    assert affinity_loss(probs, pairs) == 0
    assert affinity_loss(1 - probs, pairs) == pytest.approx(1, abs=5e-3)


def test_loss_divides_by_the_pairs_of_the_batch_plus_one() -> None:
    probs = torch.tensor([[[0.9, 0.2], [0.4, 0.6]]])
    label = torch.tensor([[[1, 0], [IGNORE, 1]]], dtype=torch.uint8)
    by_hand = 0.5 * ((0.1 + 0.4) / 3 + 0.2 / 2)
    assert affinity_loss(probs, label).item() == pytest.approx(by_hand)


def test_loss_is_zero_without_labeled_pairs() -> None:
    label = torch.full((1, 4, 4), IGNORE, dtype=torch.uint8)
    assert affinity_loss(torch.rand(1, 4, 4), label) == 0


def test_pooling_a_blockwise_constant_matrix_returns_the_block_values() -> None:
    coarse = torch.rand(1, 4, 4)
    block = torch.arange(4).view(2, 2).repeat_interleave(3, 0).repeat_interleave(3, 1).flatten()
    fine = coarse[:, block][:, :, block]
    torch.testing.assert_close(pool_pairs(fine, (6, 6), (2, 2)), coarse)


def test_pooling_commutes_with_a_flip() -> None:
    pairs = torch.rand(2, 6 * 4, 6 * 4)
    flipped = torch.arange(24).view(6, 4).flip(1).flatten()
    small = torch.arange(6).view(3, 2).flip(1).flatten()
    flipped_result = pool_pairs(pairs[:, flipped][:, :, flipped], (6, 4), (3, 2))
    torch.testing.assert_close(
        flipped_result, pool_pairs(pairs, (6, 4), (3, 2))[:, small][:, :, small]
    )


@pytest.mark.parametrize(
    ("size", "pooled"), [((6, 4), (3, 2)), ((5, 7), (2, 3)), ((5, 7), (3, 4)), ((3, 3), (3, 3))]
)
def test_pooled_logits_are_those_of_the_pooled_affinity(
    size: tuple[int, int], pooled: tuple[int, int]
) -> None:
    positions = size[0] * size[1]
    logits = 3 * torch.randn(2, positions, positions, dtype=torch.float64)
    expected = pool_pairs(logits.sigmoid(), size, pooled)
    torch.testing.assert_close(pool_pair_logits(logits, size, pooled).sigmoid(), expected)


@pytest.mark.parametrize("logit", [-200.0, -20.0, 20.0, 200.0])
def test_pooled_logits_of_a_saturated_affinity_keep_value_and_gradient(logit: float) -> None:
    logits = torch.full((1, 16, 16), logit, requires_grad=True)
    pooled = pool_pair_logits(logits, (4, 4), (2, 2))
    torch.testing.assert_close(pooled, torch.full((1, 4, 4), logit))
    pooled.sum().backward()  # each result is the mean of 4 x 4 equal logits
    torch.testing.assert_close(logits.grad, torch.full((1, 16, 16), 1 / 16), rtol=1e-4, atol=0)


def test_windows_of_pooling_created_in_inference_mode_can_be_used_in_training() -> None:
    logits = torch.zeros(1, 21, 21, requires_grad=True)
    with torch.inference_mode():
        pool_pair_logits(torch.zeros(1, 21, 21), (3, 7), (2, 2))
    pool_pair_logits(logits, (3, 7), (2, 2)).sum().backward()
    assert logits.grad is not None


@pytest.mark.parametrize("size", [(4, 5), (2 * BAND_ROWS + 1, 3)])
def test_propagation_equals_loops_over_positions(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    width, positions = size[1], size[0] * size[1]
    scores, affinity = rng.random((3, *size)), rng.random((positions, positions))
    expected = np.zeros((3, positions))
    for j in range(positions):
        column = 0.0
        for i in range(positions):
            near = abs(i // width - j // width) <= 2 and abs(i % width - j % width) <= 2
            column += affinity[i, j] ** 2 * near
        for i in range(positions):
            near = abs(i // width - j // width) <= 2 and abs(i % width - j % width) <= 2
            walk = affinity[i, j] ** 2 * near / (column + 0.1)
            expected[:, j] += scores.reshape(3, positions)[:, i] * walk
    got = propagate(torch.from_numpy(scores)[None], torch.from_numpy(affinity)[None], radius=2)
    np.testing.assert_allclose(got[0].reshape(3, positions).numpy(), expected, rtol=1e-10)


def test_propagation_is_differentiable() -> None:
    affinity = torch.rand(1, 14, 14, dtype=torch.float64, requires_grad=True)
    scores = torch.rand(1, 2, 7, 2, dtype=torch.float64)
    torch.autograd.gradcheck(lambda pairs: propagate(scores, pairs, radius=1), affinity)


def test_window_created_in_inference_mode_can_be_used_in_training() -> None:
    label = torch.ones(1, 3, 7, dtype=torch.int64)
    with torch.inference_mode():
        affinity_label(label, (3, 7), radius=1)
    affinity = torch.rand(1, 21, 21, requires_grad=True)
    affinity_loss(affinity, affinity_label(label, (3, 7), radius=1)).backward()
    assert affinity.grad is not None


def test_window_is_cached() -> None:
    assert radius_mask(4, 9, 2) is radius_mask(4, 9, 2, torch.device("cpu"))


def test_mean_attention_gives_all_heads_of_all_blocks_the_same_weight() -> None:
    blocks = [torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3)]
    blocks[1][..., 0] = 2 * np.log(4)  # over sqrt(4) it is log 4: weights 4, 1, 1
    got = mean_attention(blocks, head_dim=4)
    expected = torch.tensor([(2 / 3 + 4 / 6) / 3, (2 / 3 + 1 / 6) / 3, (2 / 3 + 1 / 6) / 3])
    torch.testing.assert_close(got[0], expected.expand(3, 3))


def test_attention_affinity_is_symmetric_and_relative_to_each_rows_peak() -> None:
    attention = torch.tensor([[[0.5, 0.5, 0.0], [0.2, 0.4, 0.4], [0.1, 0.1, 0.8]]])
    expected = torch.tensor([[[1.0, 0.75, 0.0625], [0.75, 1.0, 0.5625], [0.0625, 0.5625, 1.0]]])
    torch.testing.assert_close(attention_affinity(attention), expected)


def test_scores_move_up_to_eight_positions_by_default() -> None:
    scores = torch.zeros(1, 1, 1, 12)
    scores[..., 0] = 1.0
    moved = propagate(scores, torch.ones(1, 12, 12))
    assert moved[0, 0, 0].gt(0).tolist() == [True] * 9 + [False] * 3
    torch.testing.assert_close(moved[0, 0, 0, 0], torch.tensor(1 / 9.1))


def test_propagation_is_in_float32_under_autocast() -> None:
    """As many equal steps as lose their sum in bfloat16."""
    affinity = torch.full((1, 1, 400), 0.3).expand(1, 400, 400)
    scores = torch.rand(1, 2, 20, 20)
    exact = propagate(scores.double(), affinity.double(), radius=20)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        moved = propagate(scores, affinity.bfloat16(), radius=20)
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, exact.float(), rtol=1e-3, atol=0)
