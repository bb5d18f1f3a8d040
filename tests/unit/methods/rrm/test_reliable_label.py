"""Reliable pixels against a pixel-by-pixel oracle, sorting, and counting by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.reference import reliable_label_oracle as oracle
from torch import Tensor

from tag2mask.functional.cam import gather_classes
from tag2mask.functional.pseudo_label import select_present_classes, with_power_background
from tag2mask.methods.rrm.reliable_label import reliable_label, top_share

TAGS = torch.tensor([[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
RULE: dict[str, Any] = {"alphas": (4.0, 32.0), "confidence": 0.8, "share": 0.4, "background": 0.8}


def same(image: Tensor, probs: Tensor) -> Tensor:
    """A refiner that leaves everything as it is."""
    return probs


def sharpened(image: Tensor, probs: Tensor) -> Tensor:
    """A refiner that makes the likelier class surer, as a CRF does."""
    return probs.square() / probs.square().sum(dim=2, keepdim=True)


def labeled(cam: Tensor, tags: Tensor, refine: Any = same, **changes: Any) -> Tensor:
    images, _, height, width = cam.shape
    image = torch.zeros(images, 3, height, width, dtype=torch.uint8)
    valid = changes.pop("valid", torch.ones(images, height, width, dtype=torch.bool))
    selected = select_present_classes(tags, min(2, tags.shape[1]))
    selected_cam = gather_classes(cam, selected.classes)
    return reliable_label(image, selected_cam, selected, valid, refine, **(RULE | changes))


def test_scores_beside_powers_of_the_background_equal_the_oracle() -> None:
    cam = torch.rand(3, 4, 5, 6)
    selected = select_present_classes(TAGS, 2)
    selected_cam = gather_classes(cam, selected.classes) * selected.present[:, :, None, None]
    stacks = with_power_background(selected_cam, (4.0, 32.0))
    assert stacks.shape == (3, 2, 3, 5, 6)
    torch.testing.assert_close(stacks.sum(dim=2), torch.ones(3, 2, 5, 6))
    for n, present in enumerate([[0, 2], [3], []]):
        for s, alpha in enumerate((4, 32)):
            expected = oracle.power_stack(cam[n].double().numpy(), present, alpha)
            found = stacks[n, s, : len(expected)].double().numpy()
            np.testing.assert_allclose(found, expected, atol=1e-6)
    assert stacks[1:, :, 2].abs().max() == 0  # no second class there


def test_a_hand_counted_score() -> None:
    cam = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    found = with_power_background(cam, (2.0,)).flatten()
    torch.testing.assert_close(found, torch.tensor([0.25, 0.5, 0.25]))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_the_top_share_is_what_sorting_finds(share: float) -> None:
    value, member = torch.rand(2, 3, 50), torch.rand(2, 3, 50) < 0.6
    member[0, 1] = False
    found = top_share(value, member, share)
    for n in range(2):
        for k in range(3):
            places = [i for i in range(50) if member[n, k, i]]
            places.sort(key=lambda i: -value[n, k, i].item())
            kept = places[: int(np.ceil(round(len(places) * share, 6)))]
            assert found[n, k].nonzero().flatten().tolist() == sorted(kept)


def test_the_share_is_rounded_up_but_not_by_rounding_errors() -> None:
    value = torch.arange(100.0).view(1, 1, 100)
    everything = torch.ones(1, 1, 100, dtype=torch.bool)
    assert 0.07 * 100 > 7
    assert top_share(value, everything, 0.07).sum() == 7
    assert top_share(value, everything, 0.071).sum() == 8


def test_equals_of_the_last_are_let_in() -> None:
    value = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.1]).view(1, 1, 5)
    found = top_share(value, torch.ones(1, 1, 5, dtype=torch.bool), 0.4)
    assert found.flatten().tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("refine", [same, sharpened])
@pytest.mark.parametrize(
    "changes",
    [{}, {"confidence": 0.5}, {"share": 1.0}, {"background": 0.0}, {"alphas": (1.0, 2.0)}],
    ids=str,
)
def test_labels_equal_the_oracle(refine: Any, changes: dict[str, Any]) -> None:
    cam = torch.rand(3, 4, 9, 11) ** 3
    valid = torch.ones(3, 9, 11, dtype=torch.bool)
    valid[0, :, :3] = False
    found = labeled(cam, TAGS, refine, valid=valid, **changes)

    def refine_one(probs: np.ndarray) -> np.ndarray:
        return refine(None, torch.from_numpy(probs)[None, None])[0, 0].numpy()

    for n in range(3):
        expected = oracle.reliable_label(
            cam[n].double().numpy(), TAGS[n].numpy(), valid[n].numpy(), refine_one, **RULE | changes
        )
        np.testing.assert_array_equal(found[n].numpy(), expected)
    assert (found == 255).any()
    assert (found[0] == 1).any()


def test_labels_counted_by_hand() -> None:
    """Evidence claims seven pixels, of which the three strongest stay; one is sure background."""
    cam = torch.tensor([0.99, 0.98, 0.97, 0.96, 0.95, 0.3, 0.15, 0.0]).view(1, 1, 1, 8)
    found = labeled(cam, torch.ones(1, 1)).flatten().tolist()
    assert found == [1, 1, 1, 255, 255, 255, 255, 0]
    everything = labeled(cam, torch.ones(1, 1), share=1.0).flatten().tolist()
    # At 0.3 it wins by .3 to .24, not surely; at 0.15 background wins by the first alpha alone.
    assert everything == [1, 1, 1, 1, 1, 255, 255, 0]


def test_the_share_is_of_what_cam_claims_whatever_the_refiner_says() -> None:
    cam = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]).view(1, 1, 1, 5)

    def only_the_weak_win(image: Tensor, probs: Tensor) -> Tensor:
        foreground = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
        return torch.stack([1 - foreground, foreground])[None, None, :, None].expand_as(probs)

    def found(share: float) -> list[int]:
        return labeled(cam, torch.ones(1, 1), only_the_weak_win, share=share).flatten().tolist()

    assert found(0.4) == [255] * 5
    assert found(0.6) == [255, 255, 1, 255, 255]


def test_cam_of_a_tenth_makes_no_pixel_reliable() -> None:
    cam = torch.tensor([1.0, 0.1]).view(1, 1, 1, 2)

    def foreground_wins(image: Tensor, probs: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.9]).view(1, 1, 2, 1, 1).expand_as(probs)

    found = labeled(cam, torch.ones(1, 1), foreground_wins, share=1.0, alphas=(4.0, 64.0))
    assert found.flatten().tolist() == [1, 255]


def test_background_needs_a_image_without_cam_there() -> None:
    cam = torch.tensor([0.005, 0.05]).view(1, 1, 1, 2)

    def background_wins(image: Tensor, probs: Tensor) -> Tensor:
        return torch.tensor([0.9, 0.1]).view(1, 1, 2, 1, 1).expand_as(probs)

    assert labeled(cam, torch.ones(1, 1), background_wins).flatten().tolist() == [0, 255]
    # 0.995^32 = .85, 0.95^32 = .19
    found = labeled(cam, torch.ones(1, 1), background_wins, background=0.15)
    assert found.flatten().tolist() == [0, 0]


def test_a_image_without_tags_is_background_but_for_its_padding() -> None:
    valid = torch.tensor([[[True, False]]])
    found = labeled(torch.rand(1, 4, 1, 2), torch.zeros(1, 4), valid=valid)
    assert found.flatten().tolist() == [0, 255]
