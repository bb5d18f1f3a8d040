import pytest
import torch
from torch.nn import functional as F

from tag2mask.methods.rml.prototypes import class_prototypes, mean_similarity


def test_classes_in_orthogonal_feature_regions_have_similarity_zero() -> None:
    features = torch.zeros(1, 4, 2, 2)
    features[0, 0, 0], features[0, 1, 1] = 1, 1
    cam = torch.zeros(1, 2, 2, 2)
    cam[0, 0, 0], cam[0, 1, 1] = 1, 1
    similarity = mean_similarity(*class_prototypes(cam, features, torch.ones(1, 2)))
    assert similarity == 0


def test_pooling_cams_to_one_number_makes_every_cosine_one() -> None:
    """This is how the released code reads Eq. 3; R4 departs from it."""
    cam = torch.rand(2, 3, 5, 5)
    scalar = cam.mean(dim=(2, 3)).mean(dim=0)[:, None]
    assert mean_similarity(scalar, torch.ones(3)) == pytest.approx(1)


def test_prototype_is_the_mean_over_images_with_the_class() -> None:
    features, cam = torch.rand(3, 4, 2, 2), torch.rand(3, 2, 2, 2)
    tags = torch.tensor([[1.0, 0], [1, 1], [0, 0]])
    prototype, present = class_prototypes(cam, features, tags, eps=0)
    per_image = [(cam[n, 0] * features[n]).sum((1, 2)) / cam[n, 0].sum() for n in (0, 1)]
    torch.testing.assert_close(prototype[0], (per_image[0] + per_image[1]) / 2)
    assert present.tolist() == [1, 1]


def test_absent_classes_and_pairs_of_one_class_are_excluded() -> None:
    prototype = torch.tensor([[1.0, 0], [1, 1], [1, 0]])
    got = mean_similarity(prototype, torch.tensor([1.0, 1, 0]))
    expected = F.cosine_similarity(prototype[0], prototype[1], dim=0)
    torch.testing.assert_close(got, expected)


def test_similarity_of_a_single_class_is_zero() -> None:
    assert mean_similarity(torch.rand(3, 5), torch.tensor([0.0, 1, 0])) == 0


def test_similarity_of_opposite_prototypes_is_zero() -> None:
    assert mean_similarity(torch.tensor([[1.0, 0], [-1, 0]]), torch.ones(2)) == 0


def test_cam_grid_prototypes_distinguish_positions() -> None:
    cam = torch.zeros(1, 2, 8, 8)
    cam[0, 0, :2, :2], cam[0, 1, 6:, 6:] = 1, 1
    prototype, _ = class_prototypes(cam, torch.ones(1, 3, 8, 8), torch.ones(1, 2), "cam_grid")
    assert prototype.shape == (2, 16)
    assert mean_similarity(prototype, torch.ones(2)) == 0
