"""AffinityNet and its random walk on a small network."""

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


def test_the_affinity_has_stride_8():
    affinity = method()._affinity(torch.rand(2, 3, 64, 80))
    assert affinity.shape == (2, 34, 8, 10)
    assert affinity.min() >= 0
    assert affinity.max() <= 1


def test_images_without_labels_have_zero_loss():
    psa, batch = method().train(), small_batch()
    unlabeled = replace(batch, mask=torch.full_like(batch.mask, IGNORE))
    assert psa.losses(unlabeled, 0)["affinity"].item() == 0
    assert psa.monitor["ignored_pixels"].item() == 1


def test_the_loss_uses_the_labels_at_the_center_of_each_grid_position():
    psa, batch = method().train(), small_batch()
    loss = psa.losses(batch, 0)["affinity"].item()
    coarse = batch.mask.clone()
    coarse[:] = batch.mask[:, 4::8, 4::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.manual_seed(0)
    assert psa.losses(replace(batch, mask=coarse), 0)["affinity"].item() == pytest.approx(loss)


def test_missing_labels_are_rejected():
    with pytest.raises(RecipeError, match="labels:"):
        method().losses(replace(small_batch(), mask=None), 0)


def test_a_missing_earlier_stage_is_rejected():
    with pytest.raises(RecipeError, match="from: STAGE"):
        build_method(small_recipe("psa")).compute_cam(torch.rand(1, 3, 64, 64))


def test_affinitynet_can_start_from_another_stage_than_the_one_whose_cam_it_propagates():
    cam, ordinary = small_method("cam"), small_method("cam")
    with torch.no_grad():
        for parameter in ordinary.parameters():
            parameter.add_(1)
    psa = build_method(small_recipe("psa", start="cls"), {"cls": ordinary, "cam": cam})
    for name, weight in psa.backbone.state_dict().items():
        assert torch.equal(weight, ordinary.backbone.state_dict()[name])
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(psa.compute_cam(image).cam, cam.eval().compute_cam(image).cam)
    assert not {id(p) for p in psa.backbone.parameters()} & {id(p) for p in ordinary.parameters()}


@pytest.mark.parametrize(
    ("start", "message"), [("other", "not among those in its 'from'"), ("wide", "another backbone")]
)
def test_a_start_that_does_not_fit_is_rejected(start, message):
    recipe = small_recipe("cam")
    backbone = recipe.backbone.model_copy(update={"depth_multiplier": 0.5})
    wide = recipe.model_copy(update={"backbone": backbone})
    with pytest.raises(RecipeError, match=f"^method.start: stage '{start}' .*{message}"):
        build_method(
            small_recipe("psa", start=start),
            {"cam": small_method("cam"), "wide": build_method(wide)},
        )


@torch.no_grad()
def test_the_cam_and_the_saved_weights_include_the_frozen_classifier():
    psa = method()
    view = torch.rand(2, 3, 64, 64)
    own = psa.classifier.method
    assert torch.equal(psa.compute_cam(view).cam, own.compute_cam(view).cam)
    assert {f"classifier.method.{name}" for name in own.state_dict()} <= set(psa.state_dict())
    trained = {id(p) for group in psa.parameter_groups() for p in group.parameters}
    assert not trained & {id(p) for p in own.parameters()}


@torch.no_grad()
def test_the_random_walk_equals_dense_matrix_powers():
    psa = method(walk_steps=16)
    view = torch.rand(1, 3, 64, 80)
    selected_cam = torch.rand(1, 2, 64, 80)
    propagated = psa.propagation(view)(selected_cam)
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
    pooled = scores.reshape(3, 8, 8, 10, 8).mean(axis=(2, 4)).reshape(3, 80)
    expected = pooled @ np.linalg.matrix_power(dense, 16)
    actual = propagated[0].numpy().reshape(3, 80)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6)


def test_inference_propagates_if_configured():
    output = predict_multi_scale(
        method(walk_steps=4), random_image(), PredictConfig(propagate=True, scales=(1.0,))
    )
    selected_maps = select_maps(output, [0, 2], 0.35)
    assert selected_maps.kind == "probs"
    assert selected_maps.maps.shape == (1, 3, 8, 10)
    assert (
        select_maps(
            predict_multi_scale(method(), random_image(), PredictConfig()), [0, 2], 0.35
        ).kind
        == "cam"
    )
