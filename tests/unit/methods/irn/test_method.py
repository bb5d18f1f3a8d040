"""The boundary branch on a whole small network: labels in, walk out."""

from dataclasses import replace

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method, small_recipe

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.multi_scale import predict_multi_scale
from tag2mask.inference.postprocessing import select_maps
from tag2mask.methods.build import build_method
from tag2mask.methods.irn.heads import EdgeHead
from tag2mask.methods.irn.method import IRN
from tag2mask.types import IGNORE

SMALL = {"radius": 4}


def method(**changes):
    built = small_method("irn", **SMALL, **changes)
    assert isinstance(built, IRN)
    return built


class Fixed(EdgeHead):
    """A boundary down the middle of whatever is looked at, the same in the mirror."""

    def __init__(self):
        super().__init__((4,))

    def forward(self, maps):
        height, width = maps[0].shape[-2:]
        logits = torch.full((len(maps[0]), 1, height, width), -30.0)
        logits[..., width // 2 - 1 : width - width // 2 + 1] = 30.0
        return logits


def test_without_labels_or_an_earlier_stage_the_recipe_is_rejected():
    with pytest.raises(RecipeError, match="labels:"):
        method().losses(replace(small_batch(), mask=None), 0)
    with pytest.raises(RecipeError, match="from: STAGE"):
        build_method(small_recipe("irn")).compute_cam(torch.rand(1, 3, 64, 64))


def test_unlabeled_images_teach_nothing():
    irn, batch = method().train(), small_batch()
    unknown = replace(batch, mask=torch.full_like(batch.mask, IGNORE))
    assert irn.losses(unknown, 0)["affinity"].item() == 0


def test_right_boundaries_cost_nothing_and_missing_ones_much():
    irn, batch = method().train(), small_batch()
    halves = torch.zeros_like(batch.mask)
    halves[..., 32:] = 2
    halves[..., 24:40] = IGNORE  # the cells that the boundary takes
    batch = replace(batch, mask=halves)
    irn.edge = Fixed()
    assert irn.losses(batch, 0)["affinity"].item() < 1e-3
    halves[..., 24:32], halves[..., 32:40] = 2, 0  # labels that cross the boundary
    assert irn.losses(batch, 0)["affinity"].item() > 1


def test_displacement_is_learned_only_where_asked_for():
    assert set(method().losses(small_batch(), 0)) == {"affinity"}
    irn = method(displacement=True)
    losses = irn.losses(small_batch(), 0)
    assert set(losses) == {"affinity", "displacement"}
    losses["displacement"].backward()
    assert all(p.grad is not None and p.grad.any() for p in irn.displacement.parameters())


def test_a_pretrained_backbone_is_frozen_and_one_from_scratch_learns():
    assert method().backbone.cnn.training
    recipe = small_recipe("irn", **SMALL)
    earlier = {"cam": build_method(small_recipe("cam"))}
    kind = type(earlier["cam"].backbone)
    backbone = kind(recipe.backbone)
    backbone.loaded = frozenset(name for name, _ in backbone.named_parameters())
    irn = IRN(recipe.method, backbone, 3, None, 10).train()
    assert not any(part.training for part in irn.backbone.modules())
    assert not any(p.requires_grad for p in irn.backbone.parameters())
    irn.losses(small_batch(), 0)["affinity"].backward()
    assert irn.edge.mix.weight.grad.any()


@torch.no_grad()
def test_boundaries_of_the_mirrored_image_are_mirrored():
    irn, view = method().eval(), torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(irn.boundary(view.flip(-1)), irn.boundary(view).flip(-1))


@torch.no_grad()
def test_cam_fills_its_side_of_a_boundary_and_no_more():
    irn = method().eval()
    irn.edge = Fixed()
    selected_cam = torch.zeros(1, 2, 64, 64)
    selected_cam[0, 0, :16, :16] = 1
    selected_cam[0, 1, 48:, 56:] = 0.5
    selected_cam[0, :, :, 28:36] = 1  # seen on the boundary itself: counts for neither side
    moved = irn.propagation(torch.rand(1, 3, 64, 64))(selected_cam)
    assert moved.shape == (1, 2, 16, 16)
    assert moved.amax().item() == pytest.approx(1)
    left, right = moved[0, :, :, :7], moved[0, :, :, 9:]
    assert left[0].min() > 0.5  # one part of the thing was seen: all of its side is it
    assert left[1].max() == 0
    assert right[0].max() == 0
    assert right[1].min() > 0
    assert moved[0, :, :, 7:9].max() == 0  # the boundary itself keeps nothing


def test_prediction_walks_where_it_is_asked_to():
    image = torch.randint(0, 256, (1, 3, 64, 80), dtype=torch.uint8)
    irn = method(walk_steps=2).eval()
    seen = predict_multi_scale(irn, image, PredictConfig(propagate=True, scales=(1.0,)))
    selected_maps = select_maps(seen, [0, 2], 0.35)
    assert selected_maps.kind == "cam"
    assert selected_maps.maps.shape == (1, 2, 16, 20)
    assert not selected_maps.maps.requires_grad
