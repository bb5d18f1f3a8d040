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
    """Return the probabilities unchanged."""
    return probs


def sharpened(image: Tensor, probs: Tensor) -> Tensor:
    """Increase the larger probabilities, like a CRF."""
    return probs.square() / probs.square().sum(dim=2, keepdim=True)


def labeled(cam: Tensor, tags: Tensor, refine: Any = same, **changes: Any) -> Tensor:
    images, _, height, width = cam.shape
    image = torch.zeros(images, 3, height, width, dtype=torch.uint8)
    valid = changes.pop("valid", torch.ones(images, height, width, dtype=torch.bool))
    selected = select_present_classes(tags, min(2, tags.shape[1]))
    selected_cam = gather_classes(cam, selected.class_indices)
    return reliable_label(image, selected_cam, selected, valid, refine, **(RULE | changes))


def test_power_background_equals_the_oracle() -> None:
    cam = torch.rand(3, 4, 5, 6)
    selected = select_present_classes(TAGS, 2)
    selected_cam = gather_classes(cam, selected.class_indices)
    selected_cam = selected_cam * selected.is_present[:, :, None, None]
    probs = with_power_background(selected_cam, (4.0, 32.0))
    assert probs.shape == (3, 2, 3, 5, 6)
    torch.testing.assert_close(probs.sum(dim=2), torch.ones(3, 2, 5, 6))
    for n, present in enumerate([[0, 2], [3], []]):
        for s, alpha in enumerate((4, 32)):
            expected = oracle.power_probs(cam[n].double().numpy(), present, alpha)
            actual = probs[n, s, : len(expected)].double().numpy()
            np.testing.assert_allclose(actual, expected, atol=1e-6)
    assert probs[1:, :, 2].abs().max() == 0  # images without a second class


def test_power_background_by_hand() -> None:
    cam = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    actual = with_power_background(cam, (2.0,)).flatten()
    torch.testing.assert_close(actual, torch.tensor([0.25, 0.5, 0.25]))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.4, 1.0])
def test_top_share_equals_sorting(share: float) -> None:
    value, member = torch.rand(2, 3, 50), torch.rand(2, 3, 50) < 0.6
    member[0, 1] = False
    actual = top_share(value, member, share)
    for n in range(2):
        for k in range(3):
            indices = [i for i in range(50) if member[n, k, i]]
            indices.sort(key=lambda i: -value[n, k, i].item())
            top = indices[: int(np.ceil(round(len(indices) * share, 6)))]
            assert actual[n, k].nonzero().flatten().tolist() == sorted(top)


def test_top_share_is_rounded_up_without_floating_point_errors() -> None:
    value = torch.arange(100.0).view(1, 1, 100)
    everything = torch.ones(1, 1, 100, dtype=torch.bool)
    assert 0.07 * 100 > 7
    assert top_share(value, everything, 0.07).sum() == 7
    assert top_share(value, everything, 0.071).sum() == 8


def test_ties_are_included_in_the_top_share() -> None:
    value = torch.tensor([0.9, 0.5, 0.5, 0.5, 0.1]).view(1, 1, 5)
    actual = top_share(value, torch.ones(1, 1, 5, dtype=torch.bool), 0.4)
    assert actual.flatten().tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("refine", [same, sharpened])
@pytest.mark.parametrize(
    "changes",
    [{}, {"confidence": 0.5}, {"share": 1.0}, {"background": 0.0}, {"alphas": (1.0, 2.0)}],
    ids=str,
)
def test_reliable_label_equals_the_oracle(refine: Any, changes: dict[str, Any]) -> None:
    cam = torch.rand(3, 4, 9, 11) ** 3
    valid = torch.ones(3, 9, 11, dtype=torch.bool)
    valid[0, :, :3] = False
    actual = labeled(cam, TAGS, refine, valid=valid, **changes)

    def refine_one(probs: np.ndarray) -> np.ndarray:
        return refine(None, torch.from_numpy(probs)[None, None])[0, 0].numpy()

    for n in range(3):
        expected = oracle.reliable_label(
            cam[n].double().numpy(), TAGS[n].numpy(), valid[n].numpy(), refine_one, **RULE | changes
        )
        np.testing.assert_array_equal(actual[n].numpy(), expected)
    assert (actual == 255).any()
    assert (actual[0] == 1).any()


def test_reliable_label_by_hand() -> None:
    """The CAM assigns seven pixels to the class and the top three stay; one is background."""
    cam = torch.tensor([0.99, 0.98, 0.97, 0.96, 0.95, 0.3, 0.15, 0.0]).view(1, 1, 1, 8)
    actual = labeled(cam, torch.ones(1, 1)).flatten().tolist()
    assert actual == [1, 1, 1, 255, 255, 255, 255, 0]
    everything = labeled(cam, torch.ones(1, 1), share=1.0).flatten().tolist()
    # At 0.3 it wins by only .3 to .24; at 0.15 background wins with the first alpha only.
    assert everything == [1, 1, 1, 1, 1, 255, 255, 0]


def test_share_refers_to_the_unrefined_cam() -> None:
    cam = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]).view(1, 1, 1, 5)

    def only_the_weak_win(image: Tensor, probs: Tensor) -> Tensor:
        foreground = torch.tensor([0.0, 0.0, 1.0, 1.0, 1.0])
        return torch.stack([1 - foreground, foreground])[None, None, :, None].expand_as(probs)

    def label_of(share: float) -> list[int]:
        return labeled(cam, torch.ones(1, 1), only_the_weak_win, share=share).flatten().tolist()

    assert label_of(0.4) == [255] * 5
    assert label_of(0.6) == [255, 255, 1, 255, 255]


def test_pixels_with_a_cam_of_one_tenth_are_not_reliable() -> None:
    cam = torch.tensor([1.0, 0.1]).view(1, 1, 1, 2)

    def foreground_wins(image: Tensor, probs: Tensor) -> Tensor:
        return torch.tensor([0.1, 0.9]).view(1, 1, 2, 1, 1).expand_as(probs)

    actual = labeled(cam, torch.ones(1, 1), foreground_wins, share=1.0, alphas=(4.0, 64.0))
    assert actual.flatten().tolist() == [1, 255]


def test_reliable_background_needs_a_low_cam() -> None:
    cam = torch.tensor([0.005, 0.05]).view(1, 1, 1, 2)

    def background_wins(image: Tensor, probs: Tensor) -> Tensor:
        return torch.tensor([0.9, 0.1]).view(1, 1, 2, 1, 1).expand_as(probs)

    assert labeled(cam, torch.ones(1, 1), background_wins).flatten().tolist() == [0, 255]
    # 0.995^32 = .85, 0.95^32 = .19
    actual = labeled(cam, torch.ones(1, 1), background_wins, background=0.15)
    assert actual.flatten().tolist() == [0, 0]


def test_image_without_tags_is_background_except_for_its_padding() -> None:
    valid = torch.tensor([[[True, False]]])
    actual = labeled(torch.rand(1, 4, 1, 2), torch.zeros(1, 4), valid=valid)
    assert actual.flatten().tolist() == [0, 255]
