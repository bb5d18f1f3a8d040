import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.cam import gather_classes
from tag2mask.functional.pseudo_label import (
    confident_label,
    fill_padding,
    propagated_label,
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


@pytest.mark.parametrize(("max_tags", "columns"), [(0, 1), (1, 1), (3, 3)])
def test_as_many_classes_are_listed_as_the_largest_number_of_tags(
    max_tags: int, columns: int
) -> None:
    """One at least, so that later steps need no special case for images without tags."""
    class_indices, is_present = select_present_classes(torch.zeros(2, 4), max_tags)
    assert class_indices.shape == is_present.shape == (2, columns)
    assert not is_present.any()


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


def test_thresholds_are_those_of_the_specification_by_default() -> None:
    cam = torch.tensor([0.34, 0.36, 0.54, 0.56]).repeat_interleave(8).expand(1, 1, 8, 32)
    selected = select_present_classes(torch.tensor([[0, 1]]), 1)
    image, valid = torch.zeros(1, 3, 8, 32, dtype=torch.uint8), torch.ones(1, 8, 32).bool()
    expected = [0, IGNORE, IGNORE, 2]
    label = pseudo_label(image, cam, selected, valid, unrefined)
    assert label[0, 0, 3::8].tolist() == expected


def test_the_refiner_sees_image_and_probabilities_at_half_size() -> None:
    """Half of one row is one row; the result has the size of the image again."""
    inputs = []

    def refine(image: Tensor, probs: Tensor) -> Tensor:
        inputs.append((image, probs.shape))
        return probs

    image = torch.randint(0, 256, (2, 3, 1, 12), dtype=torch.uint8)
    selected = select_present_classes(torch.tensor([[1, 0, 1], [0, 1, 0]]), 2)
    labels = refined_labels(image, torch.rand(2, 2, 1, 12), selected, refine, (0.5, 0.3, 0.1))
    assert labels.shape == (2, 3, 1, 12)
    (small, shape), half = inputs[0], image.float().unflatten(3, (6, 2)).mean(dim=4)
    assert shape == (2, 3, 3, 1, 6)
    torch.testing.assert_close(small, half)


def test_a_pixel_takes_the_first_of_the_most_probable_classes() -> None:
    cam = torch.full((1, 3, 4, 4), 0.6)
    cam[0, 1] = 0.9
    selected = select_present_classes(torch.ones(1, 3), 3)
    image = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    assert refined_labels(image, cam, selected, unrefined, (0.5,)).unique().tolist() == [2]
    cam[0, 1] = 0.6
    assert refined_labels(image, cam, selected, unrefined, (0.5,)).unique().tolist() == [1]


def slow_propagation(scores: Tensor, affinity: Tensor, width: int, radius: int) -> Tensor:
    """Move (C, L) scores along (L, L) affinities of near positions, pair by pair."""
    moved = torch.zeros_like(scores)
    for j in range(scores.shape[1]):
        near = [
            i
            for i in range(scores.shape[1])
            if max(abs(i // width - j // width), abs(i % width - j % width)) <= radius
        ]
        column = sum(affinity[i, j] ** 2 for i in near) + 0.1
        moved[:, j] = sum(scores[:, i] * affinity[i, j] ** 2 for i in near) / column
    return moved


def resize(maps: Tensor, size: tuple[int, int], *, align_corners: bool = False) -> Tensor:
    """Resize (C, h, w) maps bilinearly."""
    return F.interpolate(maps[None], size, mode="bilinear", align_corners=align_corners)[0]


def slow_propagated_label(
    cam: Tensor, num_present: int, valid: Tensor, affinity: Tensor, radius: int
) -> Tensor:
    """Follow AFA's steps for one image whose real pixels are its first rows; 1..K are the maps."""
    labels = []
    for background in (0.55, 0.35):
        small = resize(cam[:num_present], (3, 4))
        probs = torch.cat([torch.full((1, 3, 4), background), small]).softmax(dim=0)
        moved = slow_propagation(probs.flatten(1), affinity, 4, radius).view(-1, 3, 4)
        full = resize(moved, (24, 32))
        rows = int(valid[:, 0].sum())
        full[:, rows:] = full[:, rows - 1 : rows]
        half = resize(full, (12, 16), align_corners=True)
        labels.append(resize(half, (24, 32)).argmax(dim=0))
    strict, lenient = labels
    label = torch.where(strict > 0, strict, torch.where(lenient > 0, IGNORE, 0))
    return torch.where(valid, label, IGNORE)


@pytest.mark.parametrize("radius", [1, None])
def test_propagated_label_equals_its_steps_one_image_at_a_time(radius: int | None) -> None:
    torch.manual_seed(3)
    tags = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    selected = select_present_classes(tags, 2)
    cam = F.interpolate(torch.rand(2, 2, 3, 4), (24, 32), mode="bilinear", align_corners=False)
    affinity = torch.rand(2, 12, 12) ** 4 + torch.eye(12)
    valid = torch.ones(2, 24, 32, dtype=torch.bool)
    valid[1, 18:] = False
    image = torch.randint(0, 256, (2, 3, 24, 32), dtype=torch.uint8)
    options = {} if radius is None else {"radius": radius}
    inputs = []

    def refine(image: Tensor, probs: Tensor) -> Tensor:
        inputs.append(image)
        return probs

    got = propagated_label(image, cam, selected, valid, refine, affinity, (3, 4), **options)
    assert {0, 1, 2, IGNORE} <= set(got.unique().tolist())
    for n, num_present in enumerate((2, 1)):
        expected = slow_propagated_label(cam[n], num_present, valid[n], affinity[n], radius or 8)
        torch.testing.assert_close(got[n], expected)
    assert inputs[0].shape == (2, 3, 12, 16)
    padded = resize(image[1, :, 17:18].float().expand(-1, 2, -1), (1, 16))
    torch.testing.assert_close(inputs[0][1, :, 9:], padded.expand(-1, 3, -1))


def test_scores_move_up_to_eight_positions_by_default() -> None:
    """Twelve positions in a row that are all alike, an object in the first."""
    cam = torch.zeros(1, 1, 16, 192)
    cam[..., :16] = 1.0
    labels = [
        propagated_label(
            torch.zeros(1, 3, 16, 192, dtype=torch.uint8),
            cam,
            select_present_classes(torch.ones(1, 1), 1),
            torch.ones(1, 16, 192).bool(),
            unrefined,
            torch.ones(1, 12, 12),
            (1, 12),
            foreground_threshold=0.1,
            background_threshold=0.05,
            **options,
        )
        for options in ({}, {"radius": 8}, {"radius": 7}, {"radius": 9})
    ]
    same = [torch.equal(labels[0], label) for label in labels]
    assert same == [True, True, False, False]
