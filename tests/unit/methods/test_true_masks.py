"""The pixel loss on true masks, against values computed by hand."""

import math
from dataclasses import replace

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method

from tag2mask.methods.true_masks import cam_logits, true_mask_loss
from tag2mask.types import IGNORE


def test_logits_are_peak_normalized_maps_beside_a_constant_background():
    cam = torch.tensor([[[[4.0, 2.0, -1.0]], [[9.0, 9.0, 9.0]], [[0.5, 0.2, 0.0]]]])
    tags = torch.tensor([[1.0, 0.0, 1.0]])
    mask = torch.tensor([[[1, 0, 255]]])
    logits = cam_logits(cam, tags, mask, 0.45)[0, :, 0]
    torch.testing.assert_close(logits[0], torch.full((3,), 4.5))
    torch.testing.assert_close(logits[1], torch.tensor([10.0, 5.0, -2.5]))
    assert (logits[2] < -1000).all()  # neither tagged nor in the mask
    torch.testing.assert_close(logits[3], torch.tensor([5.0, 2.0, 0.0]))  # a peak below 1 stays


def test_a_class_in_the_mask_takes_part_without_its_tag():
    cam = torch.ones(1, 2, 1, 2)
    logits = cam_logits(cam, torch.tensor([[1.0, 0.0]]), torch.tensor([[[2, 0]]]), 0.45)
    torch.testing.assert_close(logits[0, 2, 0], torch.tensor([10.0, 10.0]))


class FixedMaps:
    """A network whose maps are given, without decoder: 2 images, 2 classes, 1 x 2 positions."""

    background_score = 0.3

    def __init__(self, cam):
        self.cam, self.backbone = cam, self

    def normalize(self, image):
        return image.float()

    def segmentation(self, image):
        return None

    def compute_cam(self, image):
        chosen = self.cam[image[:, 0, 0, 0].long()]  # the gray level names the image
        return type("Output", (), {"cam": chosen})


def fixed_batch(masked_rows):
    mask = torch.tensor([[[0, 1]], [[2, 255]]])
    for row in range(2):
        if row not in masked_rows:
            mask[row] = IGNORE
    image = torch.arange(2, dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 2)
    batch = small_batch()
    tags = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    return replace(batch, image=image, tags=tags, mask=mask, masked_rows=masked_rows)


def test_the_loss_is_the_balanced_cross_entropy_of_the_rows_with_masks():
    cam = torch.tensor([[[[1.0, 8.0]], [[7.0, 7.0]]], [[[2.0, 3.0]], [[5.0, 1.0]]]])
    method = FixedMaps(cam)

    def cross_entropy(target, *others):
        return math.log(math.exp(target) + sum(map(math.exp, others))) - target

    # Image 0 has tag 1 only: its map over 8 is (0.125, 1), true values are background, class 1.
    background = cross_entropy(3.0, 1.25)
    first = cross_entropy(10.0, 3.0)
    # Image 1 has both tags: maps (2/3, 1) and (1, 0.2), true values are class 2, ignore.
    second = cross_entropy(10.0, 3.0, 20 / 3)
    both = true_mask_loss(method, fixed_batch((0, 1)))
    assert both.item() == pytest.approx(0.5 * background + 0.5 * (first + second) / 2, rel=1e-5)
    one = true_mask_loss(method, fixed_batch((0,)))
    assert one.item() == pytest.approx(0.5 * background + 0.5 * first, rel=1e-5)
    other = true_mask_loss(method, fixed_batch((1,)))
    assert other.item() == pytest.approx(0.5 * second, rel=1e-5)  # no background pixel


def test_a_decoder_learns_at_its_own_logits():
    method, batch = small_method("afa").train(), replace(small_batch(), masked_rows=(1,))
    torch.manual_seed(5)
    loss = true_mask_loss(method, batch)
    torch.manual_seed(5)  # dropout of the decoder
    logits = method.segmentation(method.backbone.normalize(batch.image[1:]))
    logits = torch.nn.functional.interpolate(logits, size=(64, 64), mode="bilinear")
    probs = logits.float().softmax(dim=1)[0]
    truth = batch.mask[1]
    halves = []
    for chosen in (truth == 0, (truth > 0) & (truth != 255)):
        chosen_probs = probs.permute(1, 2, 0)[chosen].gather(1, truth[chosen][:, None])
        halves.append(-chosen_probs.log().mean())
    torch.testing.assert_close(loss, sum(halves) / 2)


def test_a_map_without_any_peak_keeps_a_finite_gradient():
    cam = torch.full((1, 1, 2, 2), -3.0, requires_grad=True)
    logits = cam_logits(cam, torch.ones(1, 1), torch.ones(1, 2, 2, dtype=torch.int64), 0.45)
    logits.logsumexp(dim=1).sub(logits[:, 1]).mean().backward()
    assert torch.isfinite(cam.grad).all()
    assert cam.grad.any()
