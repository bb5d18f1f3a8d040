import copy
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method
from torch import Tensor, nn

from tag2mask.errors import DataError
from tag2mask.methods.base import Evidence, Views
from tag2mask.methods.cam import CAM
from tag2mask.methods.rib import RIB, pool_weak
from tag2mask.prediction.test_time import collect
from tag2mask.recipe import PredictConfig

TAGS = torch.tensor([[1.0, 1.0, 0.0]])
FAST = {"rate": 1e-4, "iterations": 2, "companions": 2, "companion_px": 32, "most_covered": 1.0}


class Photos:
    """Ten photos of colour blocks: 0 and 1 show class 0, 2 to 7 class 2, 8 and 9 nothing."""

    def __init__(self, broken: Sequence[int] = (), order: Sequence[int] = range(10)) -> None:
        self.order = list(order)
        self.broken = broken
        self.names = [f"photo{index}" for index in self.order]
        rows = np.zeros((10, 3), dtype=np.uint8)
        rows[:2, 0] = rows[2:8, 2] = 1
        self.tags: npt.NDArray[np.uint8] = rows[self.order]
        self.read: list[int] = []

    def photo(self, index: int) -> Tensor:
        which = self.order[index]
        if which in self.broken:
            raise DataError(f"photo{which}: broken")
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


def views(method: RIB, name: str = "photo0") -> Views:
    """One photo at two scales, each with its mirror image."""
    image = method.backbone.normalise(small_batch().image[:1])
    small = nn.functional.interpolate(image, size=(32, 48), mode="bilinear")
    pairs = [torch.cat([one, one.flip(-1)]) for one in (image, small)]
    return Views(pairs, [1.0, 0.5], TAGS, name)


@torch.no_grad()
def look(method: RIB, given: Views, photos: Photos | None = None) -> Sequence[Evidence]:
    method.accompany(photos)
    return method.look(given)


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


def slow_maps(method: RIB, given: Views, others: Sequence[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Oracle: torch's own optimiser on a copy of the network, one photo at a time."""
    config, network = method.config, copy.deepcopy(method).eval()
    groups = [
        {"params": network.backbone.parameters(), "lr": config.rate},
        {"params": network.head.parameters(), "lr": 10 * config.rate},
    ]
    optimiser = torch.optim.SGD(groups)
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
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return [total / (config.iterations + 1) for total in totals]


@pytest.mark.parametrize("accompanied", [False, True])
def test_maps_equal_fine_tuning_a_copy_with_torchs_optimiser(accompanied: bool) -> None:
    method = classifier(most_logit=1e9)
    photos = Photos() if accompanied else None
    found = look(method, views(method), photos)
    others = []
    for index in photos.read if photos else []:
        photo = Photos().photo(index)[None].float()
        small = nn.functional.interpolate(photo, (32, 32), mode="bilinear", antialias=True)
        others.append((method.backbone.normalise(small), torch.tensor(Photos().tags[index])))
    assert len(others) == (2 if accompanied else 0)
    for one, slow in zip(found, slow_maps(method, views(method), others), strict=True):
        peak = slow[:, :2].amax((2, 3), keepdim=True)
        torch.testing.assert_close(one.cam[:, :2] / peak, slow[:, :2] / peak, atol=1e-5, rtol=0)


def test_companions_change_the_maps() -> None:
    method = classifier()
    alone, together = look(method, views(method))[0], look(method, views(method), Photos())[0]
    assert (alone.cam - together.cam)[:, :2].abs().max() > 1e-4


def test_absent_classes_and_logits_are_those_of_the_network_as_trained() -> None:
    method = classifier()
    given = views(method)
    plain = CAM.evidence(method, given.images[0])
    found = look(method, given, Photos())[0]
    torch.testing.assert_close(found.logit, plain.logit.detach())
    torch.testing.assert_close(found.cam[:, 2], plain.cam[:, 2].detach())


def test_companions_show_a_class_but_none_of_the_photos_and_are_another() -> None:
    method, photos = classifier(companions=20), Photos()
    look(method, views(method), photos)
    assert sorted(photos.read) == [2, 3, 4, 5, 6, 7]
    photos = Photos()
    given = views(method)._replace(tags=torch.tensor([[0.0, 1.0, 0.0]]), name="photo4")
    look(method, given, photos)
    assert 8 not in photos.read
    assert 4 not in photos.read
    assert len(photos.read) == 7


def test_a_broken_companion_is_passed_over() -> None:
    method, photos = classifier(companions=20), Photos(broken=(3, 5))
    look(method, views(method), photos)
    assert sorted(photos.read) == [2, 4, 6, 7]


def test_companions_depend_on_seed_and_name_alone() -> None:
    method = classifier(iterations=1)
    drawn = {}
    for name in ("photo0", "photo1", "photo0 "):
        for order in (range(10), range(9, -1, -1)):
            photos = Photos(order=order)
            look(method, views(method, name), photos)
            drawn[name, order] = photos.read
    assert drawn["photo0", range(10)] == drawn["photo0", range(9, -1, -1)]
    assert len({tuple(read) for read in drawn.values()}) > 1
    other, photos = classifier(iterations=1, seed=2), Photos()
    look(other, views(other), photos)
    assert photos.read != drawn["photo0", range(10)]


def test_the_same_photo_gives_the_same_maps_whatever_came_before() -> None:
    method = classifier()
    first = look(method, views(method), Photos())[0].cam
    look(method, views(method, "photo1"), Photos())
    assert torch.equal(first, look(method, views(method), Photos())[0].cam)


@pytest.mark.parametrize("limit", [{"most_logit": 1e-6}, {"most_covered": 0.0}, {"iterations": 0}])
def test_fine_tuning_stops_at_once_where_a_limit_is_passed_already(limit) -> None:
    method = classifier(**limit)
    given = views(method)
    found = look(method, given, Photos())
    for one, pair in zip(found, given.images, strict=True):
        torch.testing.assert_close(
            one.cam[:, :2], CAM.evidence(method, pair).cam[:, :2].relu().detach()
        )


def test_the_step_that_grew_out_of_hand_adds_no_map() -> None:
    method, short = classifier(iterations=5), classifier(iterations=1)
    answers = iter([False, False, True])
    method._out_of_hand = lambda *_: next(answers)  # type: ignore[method-assign]
    found, expected = look(method, views(method)), look(short, views(short))
    torch.testing.assert_close(found[0].cam, expected[0].cam)
    assert next(answers, None) is None


def test_out_of_hand_are_large_logits_and_maps_that_cover_much_of_the_photo() -> None:
    method = classifier(most_logit=600.0, most_covered=0.7)
    wide, narrow = torch.zeros(2, 2, 1, 10), torch.zeros(2, 2, 1, 10)
    wide[:, 0, 0, :8], narrow[:, 0, 0, :7] = 0.31, 0.31  # more than 0.3 of the peak
    wide[:, 0, 0, 0] = narrow[:, 0, 0, 0] = 1.0
    wide[:, 1] = narrow[:, 1] = 1.0  # a class that the photo does not show
    tags = torch.tensor([[1.0, 0.0]]).expand(2, 2)
    few = torch.tensor(-599.0)
    assert not method._out_of_hand(few, narrow, tags)
    assert method._out_of_hand(few, wide, tags)
    assert method._out_of_hand(torch.tensor(-601.0), narrow, tags)
    assert method._out_of_hand(torch.tensor(601.0), narrow, tags)


def test_labelling_never_touches_the_network() -> None:
    method = classifier()
    before = {name: value.clone() for name, value in method.state_dict().items()}
    look(method, views(method), Photos())

    class Failing(Photos):
        def photo(self, index: int) -> Tensor:
            raise MemoryError

    with pytest.raises(MemoryError):
        look(method, views(method), Failing())
    assert all(p.grad is None and p.requires_grad for p in method.parameters())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_photo_without_tags_or_sure_classes_shows_its_plain_maps() -> None:
    method = classifier()
    given = views(method)
    untagged = given._replace(tags=torch.zeros(1, 3))
    torch.testing.assert_close(
        look(method, untagged, Photos())[0].cam, CAM.evidence(method, given.images[0]).cam.detach()
    )
    own = (method.class_logit(given.images[0]).mean(0, keepdim=True) > 0).float()
    assert own.any()
    guessed, told = (look(method, given._replace(tags=tags))[0].cam for tags in (None, own))
    assert torch.equal(guessed, told)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_test_time_works_whatever_the_mode(mode) -> None:
    method = classifier()
    photo = small_batch().image[:1]
    with mode():
        first, second = (collect(method, photo, PredictConfig(), TAGS) for _ in range(2))
        plain = collect(classifier(iterations=0), photo, PredictConfig(), TAGS)
    assert torch.equal(first.cam, second.cam)
    assert (first.cam - plain.cam)[0, :2].abs().max() > 1e-3
    torch.testing.assert_close(first.prob, plain.prob)
