import torch

from tag2mask.models.classifier import ClassActivationHead


def test_mean_pooling_gives_the_mean_of_the_map() -> None:
    head, features = ClassActivationHead(5, 3, "gap"), torch.randn(2, 5, 4, 6)
    logit, cam = head(features)
    pooled = features.mean((2, 3)) @ head.classifier.weight.flatten(1).T
    torch.testing.assert_close(logit, pooled)
    torch.testing.assert_close(logit, cam.mean((2, 3)))


def test_maximum_pooling_classifies_the_channel_maxima_not_the_maximum_of_the_map() -> None:
    head, features = ClassActivationHead(5, 3, "gmp"), torch.randn(2, 5, 4, 6)
    logit, cam = head(features)
    torch.testing.assert_close(logit, features.amax((2, 3)) @ head.classifier.weight.flatten(1).T)
    assert not torch.allclose(logit, cam.amax((2, 3)))


def test_the_map_has_no_offset() -> None:
    _, cam = ClassActivationHead(5, 3)(torch.zeros(1, 5, 2, 2))
    assert cam.abs().max() == 0
