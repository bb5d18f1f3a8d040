"""Every part of AFA equals its slow oracle for the same tensors."""

import numpy as np
import pytest
import torch
from tests.reference import afa_oracle as oracle

from tag2mask.config.recipe import load_recipe
from tag2mask.config.schema import resolve_steps
from tag2mask.functional.affinity import affinity_label, affinity_loss, propagate, radius_mask
from tag2mask.functional.cam import gather_classes, multi_scale_cam, upsample
from tag2mask.functional.pseudo_label import (
    propagated_label,
    pseudo_label,
    select_present_classes,
)
from tag2mask.functional.segmentation import segmentation_loss
from tag2mask.refiners.par import PAR, ParConfig
from tag2mask.training.optimizer import lr_multiplier

SIZE = (24, 20)
TAGS = np.array([[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
ITERATIONS = 3
LOGGED = {199: "7.960e-06", 1599: "5.520e-05", 19_999: "3.0e-09"}
"""Learning rates in the published log."""


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def images(rng):
    """Return two smooth uint8 images."""
    coarse = torch.from_numpy(rng.integers(0, 256, (2, 3, 5, 4))).float()
    return upsample(coarse, SIZE).round().to(torch.uint8)


def random_cam(rng):
    """Return smooth CAMs of three classes that span 0 to almost 1."""
    maps = upsample(torch.from_numpy(rng.random((2, 3, 4, 3))).float(), SIZE)
    smallest, largest = maps.amin((2, 3), True), maps.amax((2, 3), True)
    return (maps - smallest) / (largest - smallest + 1e-5)


def test_multi_scale_cam(rng):
    image, weight = rng.normal(size=(2, 3, 16, 12)), rng.normal(size=(4, 3))

    def network(image):  # reads every fourth pixel, so flipped images give different CAMs
        return torch.einsum("fc,nchw->nfhw", torch.from_numpy(weight), image[..., ::4, ::4])

    got = multi_scale_cam(network, torch.from_numpy(image), (1.0, 0.5, 1.5))
    for single_image, maps in zip(image, got.numpy(), strict=True):
        expected = oracle.multi_scale_cam(
            lambda one: np.einsum("fc,chw->fhw", weight, one[:, ::4, ::4]),
            single_image,
            (1, 0.5, 1.5),
        )
        np.testing.assert_allclose(maps, expected, atol=1e-10)


def test_pseudo_label(rng):
    image, cam = images(rng), random_cam(rng)
    selected = select_present_classes(torch.from_numpy(TAGS), 2)
    got = pseudo_label(
        image,
        gather_classes(cam, selected.class_indices),
        selected,
        torch.ones(2, *SIZE, dtype=torch.bool),
        PAR(ParConfig(iterations=ITERATIONS)),
    )
    for index in range(2):
        expected = oracle.pseudo_label(
            image[index].numpy(), cam[index].numpy(), TAGS[index], (0.55, 0.35), ITERATIONS
        )
        np.testing.assert_array_equal(got[index].numpy(), expected)
    assert set(got.unique().tolist()) == {0, 1, 2, 3, 255}


def test_radius_mask():
    for radius in (1, 3):
        expected = oracle.radius_mask(6, 5, radius)
        np.testing.assert_array_equal(radius_mask(6, 5, radius).numpy(), expected)


def test_affinity_label_and_loss(rng):
    label = rng.choice([0, 1, 2, 255], size=(2, 48, 40))
    pairs = affinity_label(torch.from_numpy(label), (6, 5), 2)
    expected = np.stack([oracle.affinity_label(each, (6, 5), 2) for each in label])
    np.testing.assert_array_equal(pairs.numpy(), expected)
    probs = rng.random(expected.shape)
    loss = affinity_loss(torch.from_numpy(probs), pairs)
    assert loss.item() == pytest.approx(oracle.affinity_loss(probs, expected), abs=1e-10)


def test_propagation(rng):
    scores, affinity = rng.random((2, 4, 6, 5)), rng.random((2, 30, 30))
    affinity[0, :, 3] = 0  # a position without affinity
    got = propagate(torch.from_numpy(scores), torch.from_numpy(affinity), radius=2)
    for index in range(2):
        expected = oracle.propagate(scores[index], affinity[index], 2)
        np.testing.assert_allclose(got[index].numpy(), expected, atol=1e-10)


def random_affinity(rng):
    """Return affinities of 6 x 5 positions, few of them large."""
    affinity = torch.from_numpy(rng.random((2, 30, 30)) ** 16).float()
    return torch.maximum(affinity, torch.eye(30))


def actual_labels(image, cam, valid, affinity, dilations):
    par = PAR(ParConfig(iterations=ITERATIONS, dilations=dilations))
    selected = select_present_classes(torch.from_numpy(TAGS), 2)
    selected_cam = gather_classes(cam, selected.class_indices)
    return propagated_label(
        image, selected_cam, selected, valid, par, affinity, (6, 5), radius=2
    ).numpy()


def expected_labels(image, cam, affinity, box, dilations):
    for single_image, maps, tags, pairs in zip(image, cam, TAGS, affinity, strict=True):
        yield oracle.propagated_label(
            *(single_image.numpy(), maps.numpy(), tags, pairs.numpy(), (6, 5), box),
            *((0.55, 0.35), 2, (ITERATIONS, dilations)),
        )


def test_propagated_label(rng):
    image, cam, affinity = images(rng), random_cam(rng), random_affinity(rng)
    dilations = (1, 2, 4, 8, 12, 24)
    got = actual_labels(image, cam, torch.ones(2, *SIZE, dtype=torch.bool), affinity, dilations)
    expected = list(expected_labels(image, cam, affinity, (0, 24, 0, 20), dilations))
    np.testing.assert_array_equal(got, expected)
    assert set(np.unique(got)) == {0, 1, 2, 3, 255}


def test_propagated_label_of_padded_crops_almost_equals_that_of_the_image_alone(rng):
    image, cam, affinity = images(rng), random_cam(rng), random_affinity(rng)
    top, bottom, left, right = box = (4, 22, 6, 18)
    valid = torch.zeros(2, *SIZE, dtype=torch.bool)
    valid[:, top:bottom, left:right] = True
    image = image * valid[:, None]  # padding is black
    got = actual_labels(image, cam, valid, affinity, (1, 2))
    expected = np.stack(list(expected_labels(image, cam, affinity, box, (1, 2))))
    real = valid.numpy()
    assert (got[real] == expected[real]).mean() > 0.9  # 0.75 with black padding
    assert (got[~real] == 255).all()


def test_segmentation_loss(rng):
    logits, label = rng.normal(size=(2, 4, 6, 5)) * 3, rng.choice([0, 1, 3, 255], size=(2, 6, 5))
    got = segmentation_loss(torch.from_numpy(logits), torch.from_numpy(label))
    assert got.item() == pytest.approx(oracle.segmentation_loss(logits, label), abs=1e-10)


@pytest.mark.parametrize("step", [*LOGGED, 0, 1499, 1500])
def test_learning_rate(step):
    optim = load_recipe("afa/voc_mitb1").optim
    rate = optim.lr * lr_multiplier(
        step,
        total=optim.steps,
        warmup=resolve_steps(optim.warmup, optim.steps),
        warmup_ratio=optim.warmup_ratio,
        power=optim.power,
    )
    assert rate == pytest.approx(oracle.learning_rate(step), rel=1e-10)
    if step in LOGGED:
        digits = LOGGED[step].index("e") - 2
        assert f"{rate:.{digits}e}" == LOGGED[step]
