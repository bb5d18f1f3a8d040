import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch.nn import functional as F

from tag2mask.errors import DataError
from tag2mask.refiners.dense_crf import DenseCRF, DenseCRFConfig, torch_mean_field

sys.path.insert(0, str(Path(__file__).parents[2] / "reference"))
import dense_crf_oracle as oracle

TABLE = [
    DenseCRFConfig(),
    DenseCRFConfig(bilateral_sxy=80, bilateral_srgb=13, bilateral_weight=10),
    DenseCRFConfig(bilateral_sxy=50, bilateral_weight=10, unary="label"),
    DenseCRFConfig(gaussian_sxy=1, gaussian_weight=1, bilateral_sxy=121),
    DenseCRFConfig(bilateral_sxy=83),
]
"""The rows of Specification 5.1."""
NAMES = ["afa", "psa", "irn", "toco", "rrm"]


def random_image(num=1, height=21, width=27, seed=0):
    """Return noisy images of two colors."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.randint(0, 40, (num, 3, height, width), dtype=torch.uint8, generator=generator)
    image[..., width // 2 :] += 150
    return image


def probability(*shape, seed=0):
    """Return smooth maps, like those of a network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 3 * torch.randn(*shape[:-2], 4, 5, generator=generator)
    maps = F.interpolate(coarse.flatten(0, -4), size=shape[-2:], mode="bilinear")
    return maps.view(shape).softmax(dim=-3)


def package(image, probs, config):
    """Refine with pydensecrf2: (H, W, 3) uint8 and (C, H, W)."""
    densecrf = pytest.importorskip("pydensecrf.densecrf")
    classes, height, width = probs.shape
    model = densecrf.DenseCRF2D(width, height, classes)
    if config.unary == "label":
        confident = np.full_like(probs, (1 - config.confidence) / max(1, classes - 1))
        np.put_along_axis(confident, probs.argmax(axis=0)[None], config.confidence, axis=0)
        probs = confident
    unary = -np.log(np.clip(probs, 1e-5, 1)).reshape(classes, -1)
    model.setUnaryEnergy(np.ascontiguousarray(unary, dtype=np.float32))
    model.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_weight)
    model.addPairwiseBilateral(
        sxy=config.bilateral_sxy,
        srgb=config.bilateral_srgb,
        rgbim=np.ascontiguousarray(image),
        compat=config.bilateral_weight,
    )
    return np.array(model.inference(config.iterations)).reshape(classes, height, width)


def planes(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


@pytest.mark.parametrize("config", TABLE, ids=NAMES)
def test_result_equals_pydensecrf2(config):
    image, probs = random_image(1, 40, 56), probability(1, 4, 40, 56)
    expected = package(image[0].permute(1, 2, 0).numpy().copy(), probs[0].numpy(), config)
    actual = DenseCRF(config)(image, probs)[0]
    np.testing.assert_allclose(actual, expected, atol=1e-4)


@pytest.mark.real
@pytest.mark.parametrize("config", TABLE, ids=NAMES)
def test_result_equals_pydensecrf2_on_real_images(voc_animals, config):
    names = sorted((voc_animals / "JPEGImages").glob("*.jpg"))[::1000]
    assert names
    for number, name in enumerate(names):
        with Image.open(name) as opened:
            image = np.array(opened.convert("RGB"))
        probs = probability(1, (2, 3, 21)[number % 3], *image.shape[:2], seed=number)
        expected = package(image, probs[0].numpy(), config)
        actual = DenseCRF(config)(planes(image), probs)
        np.testing.assert_allclose(actual[0], expected, atol=1e-4)


@pytest.mark.real
def test_torch_version_equals_the_compiled_one_on_a_real_image(voc_animals):
    with Image.open(next(iter(sorted((voc_animals / "JPEGImages").glob("*.jpg"))))) as opened:
        image = planes(np.array(opened.convert("RGB")))
    probs = probability(1, 1, 3, *image.shape[-2:])
    config = DenseCRFConfig()
    compiled = DenseCRF(config)(image, probs)
    torch.testing.assert_close(torch_mean_field(image, probs, config), compiled, atol=1e-3, rtol=0)


@pytest.mark.parametrize("config", TABLE, ids=NAMES)
def test_torch_version_equals_the_compiled_one(config):
    image, probs = random_image(2), probability(2, 3, 4, 21, 27)
    probs[0, 1, 2] = 0
    probs[1, 2, 1:3] = 0
    expected = DenseCRF(config)(image, probs)
    actual = torch_mean_field(image, probs, config)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=0)


def test_result_equals_the_formula_by_loops():
    config = DenseCRFConfig(
        iterations=3, gaussian_sxy=2.3, bilateral_sxy=7.7, bilateral_srgb=31, gaussian_weight=2
    )
    image, probs = random_image(1, 11, 13), probability(1, 3, 11, 13)
    colors = image[0].permute(1, 2, 0).numpy()
    points = [oracle.features(colors, 2.3), oracle.features(colors, 7.7, 31.0)]
    kernels = [oracle.symmetric(oracle.lattice(p)) for p in points]
    unary = probs[0].flatten(1).T.clamp_min(1e-5).log().double().numpy()
    expected = oracle.mean_field(unary, kernels, (2, 4), 3)
    np.testing.assert_allclose(DenseCRF(config)(image, probs)[0].flatten(1).T, expected, atol=1e-5)


def test_absent_classes_stay_zero_and_change_nothing():
    image, few = random_image(), probability(1, 2, 3, 21, 27)
    many = torch.zeros(1, 2, 21, 21, 27)
    many[:, 0, [0, 4, 9]], many[:, 1, [0, 7, 20]] = few[:, 0], few[:, 1]
    refined, expected = (
        DenseCRF(DenseCRFConfig())(image, many),
        DenseCRF(DenseCRFConfig())(image, few),
    )
    assert torch.equal(refined[:, 0, [0, 4, 9]], expected[:, 0])
    assert torch.equal(refined[:, 1, [0, 7, 20]], expected[:, 1])
    assert (refined > 0).any(dim=4).any(dim=3).sum() == 6


def test_present_classes_share_the_rest_with_label_unary():
    config = DenseCRFConfig(iterations=0, unary="label", confidence=0.6)
    probs = torch.zeros(1, 4, 2, 2)
    probs[:, 0] = torch.tensor([[0.9, 0.2], [0.2, 0.2]])
    probs[:, 1] = torch.tensor([[0.05, 0.7], [0.2, 0.1]])
    probs[:, 3] = torch.tensor([[0.05, 0.1], [0.6, 0.7]])
    refined = DenseCRF(config)(random_image(1, 2, 2), probs)
    winner = torch.tensor([[0, 1], [3, 3]])
    expected = torch.tensor([0.2, 0.2, 0.0, 0.2]).view(4, 1, 1).repeat(1, 2, 2)
    expected.scatter_(0, winner[None], 0.6)
    torch.testing.assert_close(refined[0], expected)


def test_zero_iterations_return_the_clipped_probabilities():
    config = DenseCRFConfig(iterations=0)
    probs = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 2).clone()
    probs[:, :, 0, 0] = torch.tensor([0.25, 0.75])
    refined = DenseCRF(config)(random_image(1, 2, 2), probs)
    torch.testing.assert_close(refined[0, :, 0, 0], torch.tensor([0.25, 0.75]))
    assert refined[0, 1, 1, 1].item() == pytest.approx(1e-5, rel=1e-3)


def test_rough_boundary_moves_to_the_edge_of_the_image():
    image = torch.full((1, 3, 24, 40), 40, dtype=torch.uint8)
    image[..., 20:] = 210
    cam = torch.full((1, 1, 24, 40), 0.45)
    cam[..., :17] = 0.7
    refined = DenseCRF(DenseCRFConfig())(image, torch.cat([1 - cam, cam], dim=1))
    assert refined.argmax(dim=1)[..., :20].all()
    assert not refined.argmax(dim=1)[..., 20:].any()


@pytest.mark.parametrize("unary", ["prob", "label"])
@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (2, 2)])
def test_images_of_one_pixel_or_one_line_are_supported(size, unary):
    probs = probability(1, 3, *size)
    refined = DenseCRF(DenseCRFConfig(unary=unary))(random_image(1, *size), probs)
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(1, *size))
    assert refined.isfinite().all()


def test_images_of_one_color_are_supported():
    image, probs = torch.full((1, 3, 30, 40), 128, dtype=torch.uint8), probability(1, 3, 30, 40)
    refined = DenseCRF(DenseCRFConfig())(image, probs)
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(1, 30, 40))


@pytest.mark.parametrize("unary", ["prob", "label"])
def test_single_class_has_probability_one(unary):
    refined = DenseCRF(DenseCRFConfig(unary=unary))(random_image(), torch.ones(1, 1, 21, 27))
    torch.testing.assert_close(refined, torch.ones(1, 1, 21, 27))


def test_all_zero_probabilities_become_uniform():
    refined = DenseCRF(DenseCRFConfig())(random_image(), torch.zeros(1, 4, 21, 27))
    torch.testing.assert_close(refined, torch.full_like(refined, 0.25))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_probabilities_are_rejected_with_their_position(value):
    probs = probability(2, 3, 21, 27)
    probs[1, 2, 5, 7:9] = value
    position = r"image 1, set 0, class 2, row 5, column 7 \(2 such values\)"
    with pytest.raises(DataError, match=f"probability is {value} at {position}") as caught:
        DenseCRF(DenseCRFConfig())(random_image(2), probs)
    assert "\n" not in str(caught.value)


def test_non_finite_images_are_rejected_with_their_position():
    image = random_image().float()
    image[0, 1, 3, 4] = torch.nan
    with pytest.raises(DataError, match="image is nan at image 0, channel 1, row 3, column 4"):
        DenseCRF(DenseCRFConfig())(image, probability(1, 3, 21, 27))


def test_different_sizes_are_rejected():
    with pytest.raises(ValueError, match="differ in batch or size"):
        DenseCRF(DenseCRFConfig())(random_image(), probability(1, 3, 20, 27))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_are_computed_in_float32(dtype):
    image, probs = random_image(), probability(1, 3, 21, 27).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = DenseCRF(DenseCRFConfig())(image, probs)
    assert refined.dtype == torch.float32
    torch.testing.assert_close(refined, DenseCRF(DenseCRFConfig())(image, probs.float()))


def test_float_image_equals_the_same_uint8_image():
    image, probs = random_image(), probability(1, 3, 21, 27)
    refined = DenseCRF(DenseCRFConfig())(image.double(), probs)
    assert torch.equal(refined, DenseCRF(DenseCRFConfig())(image, probs))


def test_result_has_no_gradient_and_inputs_are_unchanged():
    image, probs = random_image(), probability(1, 3, 21, 27).requires_grad_()
    before = image.clone(), probs.detach().clone()
    assert not DenseCRF(DenseCRFConfig())(image, probs).requires_grad
    assert torch.equal(image, before[0])
    assert torch.equal(probs, before[1])


def test_images_on_several_threads_equal_one_at_a_time(monkeypatch):
    image, probs = random_image(4), probability(4, 2, 3, 21, 27)
    one = DenseCRF(DenseCRFConfig())(image, probs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(DenseCRF(DenseCRFConfig())(image, probs), one)


@pytest.mark.parametrize("run", [DenseCRF(DenseCRFConfig()).refine, None])
def test_forty_million_pixels_are_rejected_with_the_limit_in_the_message(run):
    run = run or (lambda image, probs: torch_mean_field(image, probs, DenseCRFConfig()))
    image = torch.zeros(1, 3, 8000, 5000, dtype=torch.uint8)
    probs = torch.zeros(1, 1, 3, 8000, 5000)
    with pytest.raises(DataError, match=r"40\.0 million pixels .* the limit is 4096 MiB"):
        run(image, probs)


def test_noise_that_needs_too_many_corners_is_rejected():
    image = torch.randint(0, 256, (1, 3, 100, 100), dtype=torch.uint8)
    probs = probability(1, 3, 100, 100)
    config = DenseCRFConfig(memory_mib=5, bilateral_srgb=1)
    with pytest.raises(DataError, match="corners"):
        DenseCRF(config)(image, probs)
    assert DenseCRF(config)(torch.zeros_like(image), probs).isfinite().all()


@pytest.mark.parametrize(
    "wrong", [{"confidence": 1.0}, {"bilateral_sxy": 0}, {"unary": "mask"}, {"iterations": -1}]
)
def test_settings_out_of_range_are_rejected(wrong):
    with pytest.raises(ValidationError):
        DenseCRFConfig(**wrong)
