import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method
from torch import Tensor, nn

from tag2mask.config.schema import PredictConfig
from tag2mask.errors import DataError
from tag2mask.inference.multi_scale import predict_multi_scale
from tag2mask.methods.base import CamOutput
from tag2mask.methods.cam import CAM
from tag2mask.methods.protocol import ScaledViews
from tag2mask.methods.rib import RIB, gndrp

TAGS = torch.tensor([[1.0, 1.0, 0.0]])
FAST = {
    "lr": 1e-4,
    "iterations": 2,
    "num_reference_images": 2,
    "reference_px": 32,
    "max_coverage": 1.0,
}


class Images:
    """Ten images of color blocks: 0 and 1 show class 0, 2 to 7 class 2, 8 and 9 no class."""

    def __init__(self, broken: Sequence[int] = (), order: Sequence[int] = range(10)) -> None:
        self.order = list(order)
        self.broken = broken
        self.names = [f"image{index}" for index in self.order]
        rows = np.zeros((10, 3), dtype=np.uint8)
        rows[:2, 0] = rows[2:8, 2] = 1
        self.tags: npt.NDArray[np.uint8] = rows[self.order]
        self.read: list[int] = []

    def image(self, index: int) -> Tensor:
        number = self.order[index]
        if number in self.broken:
            raise DataError(f"image{number}: broken")
        self.read.append(number)
        random = np.random.default_rng(number)
        blocks = random.integers(0, 256, (3, 5, 7), dtype=np.uint8).repeat(9, 1).repeat(9, 2)
        return torch.from_numpy(blocks)


def classifier(**changes: object) -> RIB:
    """Return a RIB with the weights of a `cam` network whose maps are not zero."""
    cam = small_method("cam")
    for layer in cam.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    method = small_method("rib", **(FAST | changes))
    method.load_state_dict(cam.state_dict())
    assert isinstance(method, RIB)
    return method.eval()


def views(method: RIB, name: str = "image0") -> ScaledViews:
    """Return one image at two scales, each with its flipped copy."""
    image = method.backbone.normalize(small_batch().image[:1])
    small = nn.functional.interpolate(image, size=(32, 48), mode="bilinear")
    pairs = [torch.cat([view, view.flip(-1)]) for view in (image, small)]
    return ScaledViews(pairs, [1.0, 0.5], TAGS, name)


@torch.no_grad()
def compute_multi_scale_cam(
    method: RIB, scaled: ScaledViews, images: Images | None = None
) -> Sequence[CamOutput]:
    if images is not None:
        method = method.with_dataset(images)
    return method.compute_multi_scale_cam(scaled)


def slow_gndrp(cam: npt.NDArray[np.float32], threshold: float) -> float:
    peak, total = cam.max(), 0.0
    for value in cam.flatten().tolist():
        if peak > 0 and value / peak < threshold:
            total += value
    return total / cam.size


def test_only_pixels_below_the_threshold_are_pooled() -> None:
    cam = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    cam[1, 2] = -cam[1, 2].abs()
    pooled = gndrp(cam, 0.4)
    for n in range(2):
        for f in range(3):
            expected = slow_gndrp(cam[n, f].numpy(), 0.4)
            assert pooled[n, f].item() == pytest.approx(expected, abs=1e-6)
    torch.testing.assert_close(gndrp(cam.abs(), 2.0), cam.abs().mean((2, 3)))


def slow_maps(
    method: RIB, scaled: ScaledViews, references: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """Fine-tune a copy of the network with torch's optimizer, one image at a time: an oracle."""
    config, network = method.config, copy.deepcopy(method).eval()
    groups = [
        {"params": network.backbone.parameters(), "lr": config.lr},
        {"params": network.head.parameters(), "lr": 10 * config.lr},
    ]
    optimizer = torch.optim.SGD(groups)
    totals = [torch.zeros(())] * len(scaled.images)

    def compute_cam(image: Tensor) -> Tensor:
        return network.head(network.backbone(image).maps[-1])[1]

    for step in range(config.iterations + 1):
        loss = torch.zeros(())
        for scale, pair in enumerate(scaled.images):
            for row in range(2):
                cam = compute_cam(pair[row : row + 1])[0]
                part = torch.zeros_like(cam[0])[None].repeat(2, 3, 1, 1)
                part[row] = cam.detach().relu()
                totals[scale] = totals[scale] + part
                for index in (0, 1):
                    pooled = cam[index] / cam[index].max() < 0.4
                    loss = loss - (cam[index] * pooled).mean() / 2
        for image, tags in references:
            cam = compute_cam(image)[0]
            for index in tags.nonzero()[:, 0].tolist():
                loss = loss - (cam[index] * (cam[index] / cam[index].max() < 0.4)).mean()
        if step < config.iterations:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return [total / (config.iterations + 1) for total in totals]


@pytest.mark.parametrize("with_references", [False, True])
def test_maps_equal_fine_tuning_a_copy_with_torchs_optimizer(with_references: bool) -> None:
    method = classifier(max_logit_sum=1e9)
    images = Images() if with_references else None
    outputs = compute_multi_scale_cam(method, views(method), images)
    references = []
    for index in images.read if images else []:
        image = Images().image(index)[None].float()
        small = nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)
        references.append((method.backbone.normalize(small), torch.tensor(Images().tags[index])))
    assert len(references) == (2 if with_references else 0)
    expected = slow_maps(method, views(method), references)
    for output, slow in zip(outputs, expected, strict=True):
        peak = slow[:, :2].amax((2, 3), keepdim=True)
        torch.testing.assert_close(output.cam[:, :2] / peak, slow[:, :2] / peak, atol=1e-5, rtol=0)


def test_reference_images_change_the_maps() -> None:
    method = classifier()
    alone, together = (
        compute_multi_scale_cam(method, views(method))[0],
        compute_multi_scale_cam(method, views(method), Images())[0],
    )
    assert (alone.cam - together.cam)[:, :2].abs().max() > 1e-4


def test_absent_classes_and_logits_are_those_of_the_trained_network() -> None:
    method = classifier()
    scaled = views(method)
    plain = CAM.compute_cam(method, scaled.images[0])
    output = compute_multi_scale_cam(method, scaled, Images())[0]
    torch.testing.assert_close(output.logits, plain.logits.detach())
    torch.testing.assert_close(output.cam[:, 2], plain.cam[:, 2].detach())


def test_reference_images_are_other_images_that_share_no_class() -> None:
    method, images = classifier(num_reference_images=20), Images()
    compute_multi_scale_cam(method, views(method), images)
    assert sorted(images.read) == [2, 3, 4, 5, 6, 7]
    images = Images()
    scaled = views(method)._replace(tags=torch.tensor([[0.0, 1.0, 0.0]]), name="image4")
    compute_multi_scale_cam(method, scaled, images)
    assert 8 not in images.read
    assert 4 not in images.read
    assert len(images.read) == 7


def test_a_broken_reference_image_is_skipped() -> None:
    method, images = classifier(num_reference_images=20), Images(broken=(3, 5))
    compute_multi_scale_cam(method, views(method), images)
    assert sorted(images.read) == [2, 4, 6, 7]


def test_reference_images_depend_on_seed_and_name_only() -> None:
    method = classifier(iterations=1)
    drawn = {}
    for name in ("image0", "image1", "image0 "):
        for order in (range(10), range(9, -1, -1)):
            images = Images(order=order)
            compute_multi_scale_cam(method, views(method, name), images)
            drawn[name, order] = images.read
    assert drawn["image0", range(10)] == drawn["image0", range(9, -1, -1)]
    assert len({tuple(read) for read in drawn.values()}) > 1
    other, images = classifier(iterations=1, seed=2), Images()
    compute_multi_scale_cam(other, views(other), images)
    assert images.read != drawn["image0", range(10)]


def test_earlier_images_do_not_change_the_maps() -> None:
    method = classifier()
    first = compute_multi_scale_cam(method, views(method), Images())[0].cam
    compute_multi_scale_cam(method, views(method, "image1"), Images())
    assert torch.equal(first, compute_multi_scale_cam(method, views(method), Images())[0].cam)


@pytest.mark.parametrize(
    "limit", [{"max_logit_sum": 1e-6}, {"max_coverage": 0.0}, {"iterations": 0}]
)
def test_fine_tuning_does_not_start_beyond_a_limit(limit) -> None:
    method = classifier(**limit)
    scaled = views(method)
    outputs = compute_multi_scale_cam(method, scaled, Images())
    for output, pair in zip(outputs, scaled.images, strict=True):
        torch.testing.assert_close(
            output.cam[:, :2], CAM.compute_cam(method, pair).cam[:, :2].relu().detach()
        )


def test_the_step_that_exceeds_a_limit_adds_no_map() -> None:
    method, short = classifier(iterations=5), classifier(iterations=1)
    answers = iter([False, False, True])
    method._exceeds_limits = lambda *_: next(answers)  # type: ignore[method-assign]
    outputs, expected = (
        compute_multi_scale_cam(method, views(method)),
        compute_multi_scale_cam(short, views(short)),
    )
    torch.testing.assert_close(outputs[0].cam, expected[0].cam)
    assert next(answers, None) is None


def test_limits_apply_to_logits_and_coverage_of_tagged_classes() -> None:
    method = classifier(max_logit_sum=600.0, max_coverage=0.7)
    wide, narrow = torch.zeros(2, 2, 1, 10), torch.zeros(2, 2, 1, 10)
    wide[:, 0, 0, :8], narrow[:, 0, 0, :7] = 0.31, 0.31  # more than 0.3 of the peak
    wide[:, 0, 0, 0] = narrow[:, 0, 0, 0] = 1.0
    wide[:, 1] = narrow[:, 1] = 1.0  # a class that the image does not show
    tags = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    small = torch.tensor(-599.0)
    assert not method._exceeds_limits(small, narrow, tags)
    assert method._exceeds_limits(small, wide, tags)
    assert method._exceeds_limits(torch.tensor(-601.0), narrow, tags)
    assert method._exceeds_limits(torch.tensor(601.0), narrow, tags)


def test_labeling_does_not_change_the_network() -> None:
    method = classifier()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    compute_multi_scale_cam(method, views(method), Images())

    class Failing(Images):
        def image(self, index: int) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        compute_multi_scale_cam(method, views(method), Failing())
    assert all(p.grad is None and p.requires_grad for p in method.parameters())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_untagged_images_use_predicted_classes_and_images_without_classes_keep_plain_maps() -> None:
    method = classifier()
    scaled = views(method)
    no_classes = scaled._replace(tags=torch.zeros(1, 3))
    torch.testing.assert_close(
        compute_multi_scale_cam(method, no_classes, Images())[0].cam,
        CAM.compute_cam(method, scaled.images[0]).cam.detach(),
    )
    predicted = (method.class_logits(scaled.images[0]).mean(0, keepdim=True) > 0).float()
    assert predicted.any()
    untagged, tagged = (
        compute_multi_scale_cam(method, scaled._replace(tags=tags))[0].cam
        for tags in (None, predicted)
    )
    assert torch.equal(untagged, tagged)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_works_in_any_gradient_mode(mode) -> None:
    method = classifier()
    image = small_batch().image[:1]
    with mode():
        first, second = (
            predict_multi_scale(method, image, PredictConfig(), TAGS) for _ in range(2)
        )
        plain = predict_multi_scale(classifier(iterations=0), image, PredictConfig(), TAGS)
    assert torch.equal(first.cam, second.cam)
    assert (first.cam - plain.cam)[0, :2].abs().max() > 1e-3
    torch.testing.assert_close(first.probs, plain.probs)
