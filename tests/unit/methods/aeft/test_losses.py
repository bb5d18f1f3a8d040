import numpy as np
import pytest
import torch
from torch import Tensor

from tag2mask.methods.aeft.losses import (
    erasing_map,
    find_negatives,
    presence_embedding,
    region_embedding,
    repulsion,
)


def random_tags(num: int, classes: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(num, classes, generator=generator) < 0.3).float()


@pytest.mark.parametrize("seed", range(5))
def test_negatives_equal_brute_force(seed: int) -> None:
    tags = random_tags(9, 4, seed)
    sets = [set(row.nonzero()[:, 0].tolist()) for row in tags]
    allowed = [
        [j for j, other in enumerate(sets) if own and other and not own & other] for own in sets
    ]
    drawn: list[set[int]] = [set() for _ in sets]
    for _ in range(300):
        negatives = find_negatives(tags)
        assert negatives.exists.tolist() == [bool(others) for others in allowed]
        for image, others in enumerate(allowed):
            if others:
                drawn[image].add(int(negatives.image_index[image]))
    assert drawn == [set(others) for others in allowed]


def test_batch_of_one_class_has_no_negatives() -> None:
    assert not find_negatives(torch.tensor([[1.0, 0.0]] * 6)).exists.any()


def test_erasing_map_by_hand() -> None:
    cam = torch.tensor([[-1.0, 2.0, 4.0], [8.0, 0.0, 8.0]]).view(1, 2, 1, 3)
    tags = torch.tensor([[1.0, 0.0]])  # the second class is absent
    factor = erasing_map(cam, tags, 1, (1, 3), threshold=0.6)
    torch.testing.assert_close(
        factor, torch.tensor([0.0, 0.5, 0.0]).view(1, 1, 1, 3), atol=1e-5, rtol=0
    )


def test_erasing_map_uses_the_strongest_present_class_for_any_max_tags() -> None:
    cam, tags = torch.randn(3, 4, 5, 6), torch.tensor([[1, 1, 0, 1], [0, 0, 1, 0], [0.0, 0, 0, 0]])
    factor = erasing_map(cam, tags, 3, (10, 12), threshold=0.6)
    large = torch.nn.functional.interpolate(cam.relu(), (10, 12), mode="bilinear")
    normalized = large / large.amax((2, 3), keepdim=True) * tags[:, :, None, None]
    largest = normalized.amax(1, keepdim=True)
    expected = np.where(largest.numpy() < 0.6, largest.numpy(), 0)
    assert np.abs(factor.numpy() - expected).max() < 1e-4
    assert factor[2].abs().max() == 0
    torch.testing.assert_close(erasing_map(cam, tags, 4, (10, 12), threshold=0.6), factor)


def test_erasing_map_has_gradients_for_present_classes() -> None:
    cam = torch.randn(2, 3, 4, 4, requires_grad=True)
    tags = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    image = torch.rand(2, 3, 8, 8)
    (image * erasing_map(cam, tags, 2, (8, 8), threshold=0.6)).sum().backward()
    assert cam.grad is not None
    has_gradient = cam.grad.abs().sum((2, 3)) > 0
    assert torch.equal(has_gradient, tags.bool())


def test_presence_embedding_is_the_mean_positive_attention_of_present_classes() -> None:
    attention = torch.tensor([[3.0, -5.0], [4.0, 4.0]]).view(1, 2, 1, 2)
    embedding = presence_embedding(attention, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(embedding, torch.tensor([[1.5, 0.0]]))


def test_region_embedding_by_hand() -> None:
    attention = torch.tensor([2.0, -4.0, 1.0]).view(1, 1, 1, 3)  # scaled: 0.5, -1, 0.25
    region = torch.tensor([True, False, True]).view(1, 1, 1, 3)
    tags = torch.ones(1, 1)
    inside = region_embedding(attention, tags, region)
    torch.testing.assert_close(inside, torch.tensor([[0.375]]), rtol=1e-4, atol=0)
    everywhere = region_embedding(attention, tags)
    torch.testing.assert_close(everywhere, torch.tensor([[-0.25 / 3]]), rtol=1e-4, atol=0)
    assert region_embedding(attention, torch.zeros(1, 1), region).abs().max() == 0


def test_empty_regions_and_maps_give_zero_and_finite_gradients() -> None:
    attention = torch.zeros(1, 1, 2, 2, requires_grad=True)
    empty = torch.zeros(1, 1, 2, 2, dtype=torch.bool)
    embedding = region_embedding(attention, torch.ones(1, 1), empty)
    embedding.sum().backward()
    assert embedding.item() == 0
    assert attention.grad is not None
    assert torch.isfinite(attention.grad).all()


def test_repulsion_is_the_mean_over_pairs_closer_than_the_margin() -> None:
    anchor = torch.zeros(4, 1)
    negative = torch.tensor([[0.1], [0.5], [2.0], [0.2]])  # squared: 0.01, 0.25, 4, 0.04
    exists = torch.tensor([True, True, True, False])
    repelled = repulsion(anchor, negative, exists, margin=0.5, min_pairs=1)
    assert repelled.hard.item() == 2
    assert repelled.loss.item() == pytest.approx((0.49 + 0.25) / 2)
    assert repulsion(anchor, negative, exists, margin=0.5, min_pairs=2).loss.item() == 0


def test_repulsion_and_its_gradient_are_zero_without_pairs() -> None:
    anchor = torch.rand(3, 2, requires_grad=True)
    no_pairs = torch.zeros(3, dtype=torch.bool)
    repelled = repulsion(anchor, torch.rand(3, 2), no_pairs, margin=9.0, min_pairs=0)
    repelled.loss.backward()
    assert repelled.loss.item() == 0
    assert anchor.grad is not None
    assert anchor.grad.abs().max() == 0
