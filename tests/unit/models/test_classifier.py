import math

import pytest
import torch
from torch.nn import functional as F

from tag2mask.models.classifier import ClassActivationHead
from tag2mask.models.gated_pyramid import GPPConfig


def test_average_pooling_gives_the_mean_of_the_cam() -> None:
    head, features = ClassActivationHead(5, 3, "gap"), torch.randn(2, 5, 4, 6)
    logits, cam = head(features)
    pooled = features.mean((2, 3)) @ head.classifier.weight.flatten(1).T
    torch.testing.assert_close(logits, pooled)
    torch.testing.assert_close(logits, cam.mean((2, 3)))


def test_max_pooling_classifies_the_channel_maxima() -> None:
    head, features = ClassActivationHead(5, 3, "gmp"), torch.randn(2, 5, 4, 6)
    logits, cam = head(features)
    torch.testing.assert_close(logits, features.amax((2, 3)) @ head.classifier.weight.flatten(1).T)
    assert not torch.allclose(logits, cam.amax((2, 3)))


def test_cam_has_no_offset() -> None:
    _, cam = ClassActivationHead(5, 3)(torch.zeros(1, 5, 2, 2))
    assert cam.abs().max() == 0


def test_gated_pyramid_pooling_keeps_the_cam_and_scores_it_by_its_attention() -> None:
    head, features = ClassActivationHead(5, 3, "gpp"), torch.randn(2, 5, 16, 12)
    logits, cam = head(features)
    torch.testing.assert_close(cam, head.classifier(features))
    blend = head.pyramid(cam)
    agreed = (cam * blend).abs() * torch.where(cam > 0, 1, -1) * (cam * blend > 0)
    torch.testing.assert_close(logits, agreed.mean((2, 3)))


@pytest.mark.parametrize(("parts", "sign"), [("positive", 1), ("negative", -1)])
def test_single_part_gives_logits_of_one_sign(parts: str, sign: int) -> None:
    head = ClassActivationHead(5, 3, "gpp", GPPConfig(parts=parts))
    logits, _ = head(torch.randn(2, 5, 8, 8))
    assert (sign * logits).min() > 0


def test_weighted_pooling_averages_under_masks_that_are_the_cam() -> None:
    head, features = ClassActivationHead(5, 2, "ngwp"), torch.randn(2, 5, 4, 6)
    logits, masks = head(features)
    raw = head.classifier(features)
    odds = raw.exp()
    by_hand = odds / (math.e + odds.sum(dim=1, keepdim=True))
    torch.testing.assert_close(masks, by_hand)
    share = by_hand.mean((2, 3))
    score = (by_hand * raw).sum((2, 3)) / (1 + by_hand.sum((2, 3)))
    torch.testing.assert_close(logits, score + (1 - share) ** 3 * (0.01 + share).log())


@pytest.mark.parametrize("pooling", ["gap", "gmp", "gpp", "ngwp"])
@pytest.mark.parametrize("width", [0, 7])
def test_cam_alone_equals_the_cam_of_forward(pooling: str, width: int) -> None:
    head = ClassActivationHead(5, 3, pooling, width=width)
    features = torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(head.cam(features), head(features)[1])


@pytest.mark.parametrize(("width", "xavier"), [(0, False), (0, True), (64, False)])
def test_every_pooling_starts_with_the_same_weights(width: int, xavier: bool) -> None:
    weights = []
    for pooling in ("gap", "gmp", "gpp", "ngwp"):
        torch.manual_seed(0)
        head = ClassActivationHead(32, 6, pooling, width=width, xavier=xavier)
        weights.append(head.classifier.weight)
    assert all(torch.equal(weight, weights[0]) for weight in weights)
    fan_in = width or 32
    bound = math.sqrt(6 / (fan_in + 6)) if width or xavier else math.sqrt(1 / fan_in)
    assert 0.9 * bound < weights[0].abs().max() <= bound


def test_dropout_zeroes_channels_before_the_classifier_in_training_only() -> None:
    head, features = ClassActivationHead(64, 3, dropout=0.5), torch.ones(1, 64, 2, 2)
    head.classifier.weight.data.fill_(1.0)
    torch.testing.assert_close(head.eval()(features)[0], torch.full((1, 3), 64.0))
    logits, cam = head.train()(features)
    kept = logits[0, 0].item() / 2  # kept channels count twice
    assert kept == round(kept)
    assert 10 < kept < 54
    assert torch.equal(cam, logits[..., None, None].expand_as(cam))


def test_layer_before_the_classifier_has_a_relu() -> None:
    head, features = ClassActivationHead(5, 3, "gmp", width=7), torch.randn(2, 5, 4, 4)
    layer = F.relu(F.conv2d(features, head.embed[0].weight))
    logits, cam = head(features)
    torch.testing.assert_close(cam, head.classifier(layer))
    torch.testing.assert_close(logits, layer.amax((2, 3)) @ head.classifier.weight.flatten(1).T)


def test_classifier_is_the_only_parameter_by_default() -> None:
    assert list(ClassActivationHead(5, 3).state_dict()) == ["classifier.weight"]
