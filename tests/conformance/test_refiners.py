"""The contract of every refiner in the folder `refiners`."""

import pytest
import torch

from tag2mask import plugins
from tag2mask.refiners.base import Refiner

SIZES = [(33, 47), (1, 20), (20, 1), (1, 1)]


@pytest.fixture(params=plugins.available("refiners"))
def refiner(request) -> Refiner:
    kind = plugins.load("refiners", request.param)
    return kind(kind.Config(name=request.param))


def random_image(num=2, height=33, width=47, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (num, 3, height, width)
    return torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)


def probability(*shape, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.rand(*shape, generator=generator)).softmax(dim=-3)


def assert_probability(refined, shape):
    assert refined.shape == shape
    assert refined.min() >= 0
    assert refined.max() <= 1 + 1e-5
    total = refined.sum(dim=-3)
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-4, rtol=0)


def test_refiners_are_found():
    assert "par" in plugins.available("refiners")


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_output_is_a_probability_for_odd_sizes(refiner, height, width):
    probs = probability(2, 3, height, width)
    assert_probability(refiner(random_image(2, height, width), probs), probs.shape)


def test_certain_probabilities_stay_in_range(refiner):
    certain = torch.zeros(2, 3, 33, 47)
    certain[:, 0, :, :20] = 1
    certain[:, 1, :, 20:] = 1
    assert_probability(refiner(random_image(), certain), certain.shape)


def test_permuted_classes_permute_the_output(refiner):
    image, probs, order = random_image(), probability(2, 4, 33, 47), [2, 0, 3, 1]
    torch.testing.assert_close(refiner(image, probs[:, order]), refiner(image, probs)[:, order])


def test_constant_map_keeps_its_argmax(refiner):
    probs = torch.tensor([0.2, 0.5, 0.3]).view(1, 3, 1, 1).expand(2, 3, 33, 47)
    assert (refiner(random_image(), probs).argmax(dim=1) == 1).all()


def test_single_image_equals_the_same_image_in_a_batch(refiner):
    image, probs = random_image(), probability(2, 3, 33, 47)
    together = refiner(image, probs)
    for row in range(2):
        alone = refiner(image[row : row + 1], probs[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1])


def test_sets_of_probabilities_equal_one_set_at_a_time(refiner):
    image, probs = random_image(), probability(2, 3, 4, 33, 47)
    together = refiner(image, probs)
    assert_probability(together, probs.shape)
    for s in range(3):
        torch.testing.assert_close(together[:, s], refiner(image, probs[:, s]))


def test_uint8_and_float_images_give_the_same_result(refiner):
    image, probs = random_image(), probability(2, 3, 33, 47)
    torch.testing.assert_close(refiner(image.float(), probs), refiner(image, probs))


def test_same_input_gives_the_same_output(refiner):
    image, probs = random_image(), probability(2, 3, 33, 47)
    assert torch.equal(refiner(image, probs), refiner(image, probs))


def test_different_sizes_are_rejected(refiner):
    with pytest.raises(ValueError, match="differ in batch or size"):
        refiner(random_image(), probability(2, 3, 33, 46))


def test_refiner_has_no_parameters(refiner):
    assert not list(refiner.parameters())
