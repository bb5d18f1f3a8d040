import numpy as np
import torch
from torch import Tensor

from tag2mask.functional.cam import gather_classes
from tag2mask.functional.pseudo_label import (
    confident_label,
    fill_padding,
    pseudo_label,
    refined_labels,
    select_present_classes,
    with_background_scores,
    with_constant_background,
    with_power_background,
)
from tag2mask.types import IGNORE


def unrefined(image: Tensor, probs: Tensor) -> Tensor:
    """Return the probabilities unchanged, in place of a refiner."""
    return probs


def test_present_classes_are_listed_in_order_and_marked() -> None:
    tags = torch.tensor([[0.0, 1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0]])
    class_indices, is_present = select_present_classes(tags, 2)
    assert class_indices[0].tolist() == [1, 3]
    assert class_indices[1, 0] == 2
    assert is_present.tolist() == [[True, True], [True, False], [False, False]]


def test_probabilities_are_softmaxes_over_background_and_present_classes() -> None:
    cam = torch.zeros(1, 3, 4, 4)
    cam[0, 2], cam[0, 0] = 1.0, 0.7
    selected = select_present_classes(torch.tensor([[0.0, 0, 1]]), 2)
    selected_cam = gather_classes(cam, selected.class_indices)
    probs = with_background_scores(selected_cam, selected.is_present, (0.55, 0.35), (2, 2))
    for row, background in zip(probs[0, :, :, 0, 0].numpy(), (0.55, 0.35), strict=True):
        expected = np.exp([background, 1.0])
        np.testing.assert_allclose(row[:2], expected / expected.sum(), rtol=1e-6)
        assert row[2] == 0


def test_cams_are_halved_by_the_mean_of_four_pixels() -> None:
    """Aligned corners would sample other positions; AFA aligns them for propagated maps only."""
    selected_cam = torch.rand(1, 1, 8, 12)
    probs = with_background_scores(selected_cam, torch.ones(1, 1, dtype=torch.bool), (0.4,), (4, 6))
    expected = (torch.nn.functional.avg_pool2d(selected_cam, 2) - 0.4).sigmoid()
    torch.testing.assert_close(probs[:, 0, 1:], expected)


def slow_label(
    cam: np.ndarray, tags: np.ndarray, foreground_threshold: float, background_threshold: float
) -> np.ndarray:
    """Label pixel by pixel, without refinement."""
    label = np.zeros(cam.shape[1:], int)
    for y, x in np.ndindex(label.shape):
        scores = {c + 1: cam[c, y, x] for c in range(len(cam)) if tags[c]}
        best = max(scores, key=lambda c: scores[c], default=0)
        top = scores.get(best, -1.0)
        if top > foreground_threshold:
            label[y, x] = best
        else:
            label[y, x] = 0 if top <= background_threshold else IGNORE
    return label


def test_pseudo_label_without_refinement_equals_a_pixel_loop() -> None:
    rng = np.random.default_rng(1)
    cam = np.repeat(rng.random((3, 6, 1, 1, 1)).astype(np.float32), 8, axis=-1)
    cam = np.repeat(cam, 8, axis=-2).reshape(3, 6, 8, 8)  # one constant map per image and class
    tags = rng.integers(0, 2, (3, 6))
    valid = np.ones((3, 8, 8), bool)
    valid[1, :, 5:] = False
    selected = select_present_classes(torch.from_numpy(tags).float(), int(tags.sum(1).max()))
    got = pseudo_label(
        torch.zeros(3, 3, 8, 8, dtype=torch.uint8),
        gather_classes(torch.from_numpy(cam), selected.class_indices),
        selected,
        torch.from_numpy(valid),
        unrefined,
        foreground_threshold=0.55,
        background_threshold=0.35,
    ).numpy()
    for n in range(3):
        expected = np.where(valid[n], slow_label(cam[n], tags[n], 0.55, 0.35), IGNORE)
        np.testing.assert_array_equal(got[n], expected)


def test_padding_with_more_classes_changes_nothing() -> None:
    torch.manual_seed(0)
    cam, image = torch.rand(2, 5, 9, 7), torch.zeros(2, 3, 9, 7, dtype=torch.uint8)
    tags = torch.tensor([[1.0, 0, 1, 0, 0], [0, 0, 0, 1, 0]])
    labels = []
    for max_tags in (2, 5):
        selected = select_present_classes(tags, max_tags)
        selected_cam = gather_classes(cam, selected.class_indices)
        labels.append(refined_labels(image, selected_cam, selected, unrefined, (0.4,)))
    torch.testing.assert_close(*labels)


def test_image_without_tags_is_all_background() -> None:
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    selected = select_present_classes(torch.zeros(1, 2), 0)
    label = refined_labels(image, torch.rand(1, 1, 8, 8), selected, unrefined, (0.4,))
    assert label.max() == 0


def test_padding_takes_the_nearest_real_pixel() -> None:
    maps = torch.arange(24.0).view(1, 1, 4, 6).repeat(2, 1, 1, 1)
    valid = torch.zeros(2, 4, 6, dtype=torch.bool)
    valid[0, 1:3, 2:5] = True
    valid[1] = True
    filled = fill_padding(maps, valid)
    by_hand = [[8, 8, 8, 9, 10, 10], [14, 14, 14, 15, 16, 16]]
    assert filled[0, 0].tolist() == [by_hand[0], by_hand[0], by_hand[1], by_hand[1]]
    assert torch.equal(filled[1], maps[1])


def test_confident_label_by_hand() -> None:
    strict = torch.tensor([0, 0, 2, 2, 1, 2])
    lenient = torch.tensor([0, 1, 2, 1, 1, 0])
    assert confident_label(strict, lenient).tolist() == [0, IGNORE, 2, 2, 1, 2]


def test_power_background_by_hand() -> None:
    selected_cam = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)
    one, two = with_power_background(selected_cam, (1, 3))[0, :, :, 0, 0].tolist()
    # 1 - max is 0.5: [0.5, 0.5, 0.25] / 1.25 and [0.125, 0.5, 0.25] / 0.875
    np.testing.assert_allclose(one, [0.4, 0.4, 0.2], rtol=1e-6)
    np.testing.assert_allclose(two, [1 / 7, 4 / 7, 2 / 7], rtol=1e-6)


def test_background_wins_where_no_cam_exceeds_its_score() -> None:
    selected_cam = torch.tensor([[0.04, 0.2, 0.31], [0.0, 0.1, 0.9]]).view(1, 2, 1, 3)
    probs = with_constant_background(selected_cam, (0.3, 0.05))
    assert probs.shape == (1, 2, 3, 1, 3)
    torch.testing.assert_close(probs.sum(dim=2), torch.ones(1, 2, 1, 3))
    assert probs.argmax(dim=2)[0, :, 0].tolist() == [[0, 0, 2], [0, 1, 2]]
