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
from tag2mask.methods.rib import RIB, pool_weak

TAGS = torch.tensor([[1.0, 1.0, 0.0]])
FAST = {"rate": 1e-4, "iterations": 2, "companions": 2, "companion_px": 32, "most_covered": 1.0}


class Images:
    """Ten images of color blocks: 0 and 1 show class 0, 2 to 7 class 2, 8 and 9 nothing."""

    def __init__(self, broken: Sequence[int] = (), order: Sequence[int] = range(10)) -> None:
        self.order = list(order)
        self.broken = broken
        self.names = [f"image{index}" for index in self.order]
        rows = np.zeros((10, 3), dtype=np.uint8)
        rows[:2, 0] = rows[2:8, 2] = 1
        self.tags: npt.NDArray[np.uint8] = rows[self.order]
        self.read: list[int] = []

    def image(self, index: int) -> Tensor:
        which = self.order[index]
        if which in self.broken:
            raise DataError(f"image{which}: broken")
        self.read.append(which)
        random = np.random.default_rng(which)
        blocks = random.integers(0, 256, (3, 5, 7), dtype=np.uint8).repeat(9, 1).repeat(9, 2)
        return torch.from_numpy(blocks)


def classifier(**changes: object) -> RIB:
    """A network of `cam` with maps that do not vanish, read by RIB."""
    cam = small_method("cam")
    for part in cam.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    method = small_method("rib", **(FAST | changes))
    method.load_state_dict(cam.state_dict())
    assert isinstance(method, RIB)
    return method.eval()


def views(method: RIB, name: str = "image0") -> ScaledViews:
    """One image at two scales, each with its mirror image."""
    image = method.backbone.normalize(small_batch().image[:1])
    small = nn.functional.interpolate(image, size=(32, 48), mode="bilinear")
    pairs = [torch.cat([one, one.flip(-1)]) for one in (image, small)]
    return ScaledViews(pairs, [1.0, 0.5], TAGS, name)


@torch.no_grad()
def compute_multi_scale_cam(
    method: RIB, given: ScaledViews, images: Images | None = None
) -> Sequence[CamOutput]:
    method.set_dataset(images)
    return method.compute_multi_scale_cam(given)


def weak_mean(cam: npt.NDArray[np.float32], below: float) -> float:
    peak, total = cam.max(), 0.0
    for value in cam.flatten().tolist():
        if peak > 0 and value / peak < below:
            total += value
    return total / cam.size


def test_weak_pixels_alone_are_pooled() -> None:
    cam = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    cam[1, 2] = -cam[1, 2].abs()
    pooled = pool_weak(cam, 0.4)
    for n in range(2):
        for f in range(3):
            assert pooled[n, f].item() == pytest.approx(weak_mean(cam[n, f].numpy(), 0.4), abs=1e-6)
    torch.testing.assert_close(pool_weak(cam.abs(), 2.0), cam.abs().mean((2, 3)))


def slow_maps(
    method: RIB, given: ScaledViews, others: Sequence[tuple[Tensor, Tensor]]
) -> list[Tensor]:
    """Oracle: torch's own optimizer on a copy of the network, one image at a time."""
    config, network = method.config, copy.deepcopy(method).eval()
    groups = [
        {"params": network.backbone.parameters(), "lr": config.rate},
        {"params": network.head.parameters(), "lr": 10 * config.rate},
    ]
    optimizer = torch.optim.SGD(groups)
    totals = [torch.zeros(())] * len(given.images)

    def cam_of(image: Tensor) -> Tensor:
        return network.head(network.backbone(image).maps[-1])[1]

    for step in range(config.iterations + 1):
        loss = torch.zeros(())
        for at, pair in enumerate(given.images):
            for row in range(2):
                cam = cam_of(pair[row : row + 1])[0]
                part = torch.zeros_like(cam[0])[None].repeat(2, 3, 1, 1)
                part[row] = cam.detach().relu()
                totals[at] = totals[at] + part
                for key in (0, 1):
                    weak = cam[key] / cam[key].max() < 0.4
                    loss = loss - (cam[key] * weak).mean() / 2
        for image, tags in others:
            cam = cam_of(image)[0]
            for key in tags.nonzero()[:, 0].tolist():
                loss = loss - (cam[key] * (cam[key] / cam[key].max() < 0.4)).mean()
        if step < config.iterations:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return [total / (config.iterations + 1) for total in totals]


@pytest.mark.parametrize("accompanied", [False, True])
def test_maps_equal_fine_tuning_a_copy_with_torchs_optimizer(accompanied: bool) -> None:
    method = classifier(most_logits=1e9)
    images = Images() if accompanied else None
    found = compute_multi_scale_cam(method, views(method), images)
    others = []
    for index in images.read if images else []:
        image = Images().image(index)[None].float()
        small = nn.functional.interpolate(image, (32, 32), mode="bilinear", antialias=True)
        others.append((method.backbone.normalize(small), torch.tensor(Images().tags[index])))
    assert len(others) == (2 if accompanied else 0)
    for one, slow in zip(found, slow_maps(method, views(method), others), strict=True):
        peak = slow[:, :2].amax((2, 3), keepdim=True)
        torch.testing.assert_close(one.cam[:, :2] / peak, slow[:, :2] / peak, atol=1e-5, rtol=0)


def test_companions_change_the_maps() -> None:
    method = classifier()
    alone, together = (
        compute_multi_scale_cam(method, views(method))[0],
        compute_multi_scale_cam(method, views(method), Images())[0],
    )
    assert (alone.cam - together.cam)[:, :2].abs().max() > 1e-4


def test_absent_classes_and_logits_are_those_of_the_network_as_trained() -> None:
    method = classifier()
    given = views(method)
    plain = CAM.compute_cam(method, given.images[0])
    found = compute_multi_scale_cam(method, given, Images())[0]
    torch.testing.assert_close(found.logits, plain.logits.detach())
    torch.testing.assert_close(found.cam[:, 2], plain.cam[:, 2].detach())


def test_companions_show_a_class_but_none_of_the_images_and_are_another() -> None:
    method, images = classifier(companions=20), Images()
    compute_multi_scale_cam(method, views(method), images)
    assert sorted(images.read) == [2, 3, 4, 5, 6, 7]
    images = Images()
    given = views(method)._replace(tags=torch.tensor([[0.0, 1.0, 0.0]]), name="image4")
    compute_multi_scale_cam(method, given, images)
    assert 8 not in images.read
    assert 4 not in images.read
    assert len(images.read) == 7


def test_a_broken_companion_is_passed_over() -> None:
    method, images = classifier(companions=20), Images(broken=(3, 5))
    compute_multi_scale_cam(method, views(method), images)
    assert sorted(images.read) == [2, 4, 6, 7]


def test_companions_depend_on_seed_and_name_alone() -> None:
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


def test_the_same_image_gives_the_same_maps_whatever_came_before() -> None:
    method = classifier()
    first = compute_multi_scale_cam(method, views(method), Images())[0].cam
    compute_multi_scale_cam(method, views(method, "image1"), Images())
    assert torch.equal(first, compute_multi_scale_cam(method, views(method), Images())[0].cam)


@pytest.mark.parametrize("limit", [{"most_logits": 1e-6}, {"most_covered": 0.0}, {"iterations": 0}])
def test_fine_tuning_stops_at_once_where_a_limit_is_passed_already(limit) -> None:
    method = classifier(**limit)
    given = views(method)
    found = compute_multi_scale_cam(method, given, Images())
    for one, pair in zip(found, given.images, strict=True):
        torch.testing.assert_close(
            one.cam[:, :2], CAM.compute_cam(method, pair).cam[:, :2].relu().detach()
        )


def test_the_step_that_grew_out_of_hand_adds_no_map() -> None:
    method, short = classifier(iterations=5), classifier(iterations=1)
    answers = iter([False, False, True])
    method._out_of_hand = lambda *_: next(answers)  # type: ignore[method-assign]
    found, expected = (
        compute_multi_scale_cam(method, views(method)),
        compute_multi_scale_cam(short, views(short)),
    )
    torch.testing.assert_close(found[0].cam, expected[0].cam)
    assert next(answers, None) is None


def test_out_of_hand_are_large_logits_and_maps_that_cover_much_of_the_image() -> None:
    method = classifier(most_logits=600.0, most_covered=0.7)
    wide, narrow = torch.zeros(2, 2, 1, 10), torch.zeros(2, 2, 1, 10)
    wide[:, 0, 0, :8], narrow[:, 0, 0, :7] = 0.31, 0.31  # more than 0.3 of the peak
    wide[:, 0, 0, 0] = narrow[:, 0, 0, 0] = 1.0
    wide[:, 1] = narrow[:, 1] = 1.0  # a class that the image does not show
    tags = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    few = torch.tensor(-599.0)
    assert not method._out_of_hand(few, narrow, tags)
    assert method._out_of_hand(few, wide, tags)
    assert method._out_of_hand(torch.tensor(-601.0), narrow, tags)
    assert method._out_of_hand(torch.tensor(601.0), narrow, tags)


def test_labeling_never_touches_the_network() -> None:
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


def test_a_image_without_tags_or_sure_classes_shows_its_plain_maps() -> None:
    method = classifier()
    given = views(method)
    untagged = given._replace(tags=torch.zeros(1, 3))
    torch.testing.assert_close(
        compute_multi_scale_cam(method, untagged, Images())[0].cam,
        CAM.compute_cam(method, given.images[0]).cam.detach(),
    )
    own = (method.class_logits(given.images[0]).mean(0, keepdim=True) > 0).float()
    assert own.any()
    guessed, told = (
        compute_multi_scale_cam(method, given._replace(tags=tags))[0].cam for tags in (None, own)
    )
    assert torch.equal(guessed, told)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_test_time_works_whatever_the_mode(mode) -> None:
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
