"""AffinityNet on a whole small network: labels in, walk out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method, small_recipe

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.functional.stencil import half_disc_offsets
from tag2mask.inference.multi_scale import predict_multi_scale
from tag2mask.inference.postprocessing import select_maps
from tag2mask.methods.build import build_method
from tag2mask.methods.psa.method import PSA
from tag2mask.types import IGNORE


def method(**changes):
    built = small_method("psa", **changes)
    assert isinstance(built, PSA)
    return built.eval()


def random_image(height=64, width=80):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8, generator=generator)


def test_pairs_are_compared_at_stride_8():
    affinity = method()._affinity(torch.rand(2, 3, 64, 80))
    assert affinity.shape == (2, 34, 8, 10)
    assert affinity.min() >= 0
    assert affinity.max() <= 1


def test_unlabeled_images_teach_nothing():
    psa, batch = method().train(), small_batch()
    unknown = replace(batch, mask=torch.full_like(batch.mask, IGNORE))
    assert psa.losses(unknown, 0)["affinity"].item() == 0
    assert psa.monitor["ignored_cells"].item() == 1


def test_the_loss_is_of_the_labels_at_the_middle_of_cells():
    psa, batch = method().train(), small_batch()
    found = psa.losses(batch, 0)["affinity"].item()
    coarse = batch.mask.clone()
    coarse[:] = batch.mask[:, 4::8, 4::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.manual_seed(0)
    assert psa.losses(replace(batch, mask=coarse), 0)["affinity"].item() == pytest.approx(found)


def test_without_labels_the_recipe_is_rejected():
    with pytest.raises(RecipeError, match="labels:"):
        method().losses(replace(small_batch(), mask=None), 0)


def test_without_an_earlier_stage_there_is_no_cam():
    with pytest.raises(RecipeError, match="from: STAGE"):
        build_method(small_recipe("psa")).compute_cam(torch.rand(1, 3, 64, 64))


@torch.no_grad()
def test_cam_and_weights_file_are_the_classifiers():
    psa = method()
    view = torch.rand(2, 3, 64, 64)
    own = psa.classifier.method
    assert torch.equal(psa.compute_cam(view).cam, own.compute_cam(view).cam)
    assert {f"classifier.method.{name}" for name in own.state_dict()} <= set(psa.state_dict())
    trained = {id(p) for group in psa.parameter_groups() for p in group.parameters}
    assert not trained & {id(p) for p in own.parameters()}


@torch.no_grad()
def test_the_walk_is_that_of_the_dense_matrix():
    psa = method(walk_steps=16)
    view = torch.rand(1, 3, 64, 80)
    selected_cam = torch.rand(1, 2, 64, 80)
    moved = psa.propagation(view)(selected_cam)
    affinity = psa._affinity(view)[0].double().numpy()
    dense = np.eye(80)
    for tap, (dy, dx) in enumerate(half_disc_offsets(5)):
        for y in range(8):
            for x in range(10):
                if 0 <= y + dy < 8 and 0 <= x + dx < 10:
                    pair = y * 10 + x, (y + dy) * 10 + x + dx
                    dense[pair] = dense[pair[::-1]] = affinity[tap, y, x] ** 8
    dense /= dense.sum(axis=0)
    array = selected_cam[0].double().numpy()
    scores = np.concatenate([(1 - array.max(axis=0, keepdims=True)) ** 16, array])
    cells = scores.reshape(3, 8, 8, 10, 8).mean(axis=(2, 4)).reshape(3, 80)
    expected = cells @ np.linalg.matrix_power(dense, 16)
    np.testing.assert_allclose(moved[0].numpy().reshape(3, 80), expected, rtol=1e-4, atol=1e-6)


def test_prediction_walks_where_it_is_asked_to():
    seen = predict_multi_scale(
        method(walk_steps=4), random_image(), PredictConfig(propagate=True, scales=(1.0,))
    )
    selected_maps = select_maps(seen, [0, 2], 0.35)
    assert selected_maps.kind == "probs"
    assert selected_maps.maps.shape == (1, 3, 8, 10)
    assert (
        select_maps(
            predict_multi_scale(method(), random_image(), PredictConfig()), [0, 2], 0.35
        ).kind
        == "cam"
    )
