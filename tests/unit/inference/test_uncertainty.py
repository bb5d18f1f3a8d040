"""The parts of the uncertainty, counted by hand on maps of a few pixels."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tag2mask.config.schema import PredictConfig
from tag2mask.data.base import Source
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.uncertainty import (
    MAX_PIXELS,
    USUAL,
    class_contradiction,
    combine_parts,
    expected_iou,
    mask_iou,
    network_parts,
    postprocess_with_parts,
    view_votes,
)
from tag2mask.methods.protocol import NetworkOutput
from tag2mask.refiners.base import Refiner, RefinerConfig


def row(*values: float) -> Tensor:
    return torch.tensor(values).view(1, 1, 1, -1)


def two_classes(foreground: list[float]) -> Tensor:
    one = torch.tensor(foreground).view(1, 1, 1, -1)
    return torch.cat([1 - one, one], dim=1)


def test_expected_iou_is_that_of_the_mask_under_the_probabilities() -> None:
    # mask: first two pixels; intersection 0.9 + 0.6; union 2 + 0.4 + 0
    assert expected_iou(two_classes([0.9, 0.6, 0.4, 0.0])) == pytest.approx(1.5 / 2.4)
    assert expected_iou(two_classes([1.0, 1.0, 0.0])) == 1
    assert expected_iou(two_classes([0.4, 0.3])) == 0  # no pixel shows the class


def test_expected_iou_is_the_mean_over_selected_or_shown_classes() -> None:
    probs = torch.tensor([[0.2, 0.1], [0.8, 0.6], [0.0, 0.3]]).view(1, 3, 1, 2)
    # class 1 has both pixels: 1.4 / 2; class 2 has none
    assert expected_iou(probs) == pytest.approx(0.35)
    assert expected_iou(probs, only_shown=True) == pytest.approx(0.7)


def test_mask_iou_compares_the_most_probable_classes() -> None:
    before, after = two_classes([0.9, 0.6, 0.4, 0.0]), two_classes([0.9, 0.4, 0.8, 0.7])
    assert mask_iou(before, after) == pytest.approx(1 / 4)
    assert mask_iou(before, before) == 1


def test_views_vote_at_one_size_with_flipped_copies_turned_back() -> None:
    upright = torch.cat([row(0.9, 0.2), row(0.1, 0.8)])  # the copy of the flipped image agrees
    other = row(0.7, 0.6)  # a scale without flip
    votes = view_votes([upright, other], [0], 0.5)
    assert votes.shape == (1, 2, 1, 2)
    torch.testing.assert_close(votes[0, 1, 0], torch.tensor([1.0, 1 / 3]))
    torch.testing.assert_close(votes.sum(dim=1), torch.ones(1, 1, 2))


def test_contradiction_counts_missing_and_additional_classes() -> None:
    probs = torch.tensor([[0.9, 0.3, 0.2]])
    assert class_contradiction(probs, [0]) == pytest.approx(0.3)
    assert class_contradiction(probs, [0, 2]) == pytest.approx(0.8)
    assert class_contradiction(probs, []) == pytest.approx(0.9)


def test_total_is_the_weighted_mean_of_scaled_parts() -> None:
    low, high = USUAL["views"]
    middle = {"views": (low + high) / 2}
    assert combine_parts(middle).total == pytest.approx(0.5)
    assert combine_parts({**middle, "pixels": 1.0}).total == pytest.approx(0.75)
    assert combine_parts({"views": 0.0, "tags": 1.0}).total == pytest.approx(
        0.2
    )  # a quarter of 1.25
    changed = {"refinement": 1.0, "tags": 0.0}  # both count a quarter
    assert combine_parts(changed).total == pytest.approx(0.5)
    assert combine_parts({}).total == 0
    assert combine_parts(middle).parts == middle


def test_parts_of_the_network_need_classes_and_two_views() -> None:
    cam, probs = torch.zeros(1, 2, 1, 2), torch.tensor([[0.9, 0.2]])
    views = [torch.cat([row(0.9, 0.2), row(0.2, 0.9)]).expand(2, 2, 1, 2)]
    parts = network_parts(NetworkOutput(cam, probs, views=views), [0], 0.3)
    assert parts == {"tags": pytest.approx(0.2), "views": pytest.approx(0.0)}
    assert network_parts(NetworkOutput(cam, probs), [0], 0.3).keys() == {"tags"}
    assert network_parts(NetworkOutput(cam, probs, views=views), [], 0.3).keys() == {"tags"}


def test_a_decoder_gets_all_classes_which_contradicts_nothing() -> None:
    output = NetworkOutput(torch.zeros(1, 2, 1, 2), torch.tensor([[0.9, 0.2]]))
    assert network_parts(output, [0, 1], 0.3, are_chosen=False)["tags"] == pytest.approx(0.2)
    assert network_parts(output, [0, 1], 0.3)["tags"] == pytest.approx(0.8)


class SwapPixels(Refiner):
    """Reverses the order of the pixels of each row."""

    def __init__(self) -> None:
        super().__init__(RefinerConfig(name="swap"))

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        return probs.flip(-1)


def test_refinement_compares_masks_before_and_after() -> None:
    selected = SelectedMaps((0,), row(1.0, 1.0, 0.0, 0.0).expand(1, 1, 2, 4), "cam", (4, 8), 0.5)
    image = torch.zeros(1, 3, 4, 8, dtype=torch.uint8)
    made, parts = postprocess_with_parts(
        PostProcessor(PredictConfig(), SwapPixels(), None), image, selected
    )
    assert parts["refinement"] == 1  # no pixel in common
    share = float(torch.tensor([0.5, 1.0]).softmax(dim=0)[1])
    other = float(torch.tensor([0.5, 0.0]).softmax(dim=0)[1])
    assert parts["pixels"] == pytest.approx(1 - 2 * share / (2 + 2 * other))
    expected = PostProcessor(PredictConfig(), SwapPixels(), None)(image, selected).mask
    assert torch.equal(made.mask, expected)
    unrefined = postprocess_with_parts(PostProcessor(PredictConfig(), None, None), image, selected)
    assert unrefined[1].keys() == {"pixels"}


def test_an_image_without_classes_has_no_parts_of_maps() -> None:
    selected = SelectedMaps((), torch.zeros(1, 0, 2, 4), "cam", (4, 8), 0.5)
    image = torch.zeros(1, 3, 4, 8, dtype=torch.uint8)
    assert (
        postprocess_with_parts(PostProcessor(PredictConfig(), None, None), image, selected)[1] == {}
    )


def test_large_maps_are_sampled() -> None:
    side = int(2 * MAX_PIXELS**0.5)
    selected = SelectedMaps((0,), torch.rand(1, 1, side, side), "cam", (side, side), 0.5)
    image = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    parts = postprocess_with_parts(PostProcessor(PredictConfig(), None, None), image, selected)[1]
    complete = 1 - expected_iou(
        torch.cat([torch.full_like(selected.maps, 0.5), selected.maps], dim=1).softmax(dim=1)
    )
    assert parts["pixels"] == pytest.approx(complete, abs=0.01)


def test_a_prediction_has_every_part_and_the_mask_does_not_change(
    segmenter: Segmenter, source: Source
) -> None:
    sample = source[0]
    made = segmenter.segment(sample.image, sample.tags)
    assert made.uncertainty is not None
    assert made.uncertainty.parts.keys() == {"views", "refinement", "pixels", "tags"}
    assert all(0 <= value <= 1 for value in made.uncertainty.parts.values())
    output = segmenter.run_network(sample.image, sample.tags)
    assert np.array_equal(made.mask, segmenter.compute_mask(sample.image, output, [0]).mask)
