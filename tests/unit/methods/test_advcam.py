import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method
from torch import Tensor, nn

from tag2mask.config.schema import PredictConfig
from tag2mask.inference.multi_scale import predict_multi_scale
from tag2mask.methods.advcam import AdvCAM
from tag2mask.methods.cam import CAM
from tag2mask.methods.protocol import ScaledViews

TAGS = torch.tensor([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]])


def classifier(**changes: object) -> AdvCAM:
    """A network of `cam` with maps that do not vanish, read by AdvCAM."""
    cam = small_method("cam")
    for part in cam.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    method = small_method("advcam", label_precision="fp32", **changes)
    method.load_state_dict(cam.state_dict())
    assert isinstance(method, AdvCAM)
    return method.eval()


def images(method: AdvCAM) -> Tensor:
    return method.backbone.normalize(small_batch().image)


def one_climb(method: AdvCAM, image: Tensor, key: int, rounds: int, hold: float = 7.0) -> Tensor:
    """Slow oracle: one class of one (1, 3, h, w) image, with Grad-CAM by autograd; (h, w) sum."""
    low, high = image.min(), image.max()
    first, total = None, 0
    for _ in range(rounds):
        image = image.detach().requires_grad_()
        features = method.backbone(image).maps[-1]
        maps = method.head(features)[1].clamp_min(0)[0]
        (slope,) = torch.autograd.grad(maps[key].sum(), features, retain_graph=True)
        weight = slope.sum((0, 2, 3)) / max(int((slope > 0).sum()), 1)
        region = torch.einsum("d,dhw->hw", weight, features[0]).clamp_min(0)
        total = total + region.detach()
        first = region.detach() if first is None else first
        score = maps.mean((1, 2))
        others = sum(score[k] for k in range(len(score)) if k != key)
        drift = 0.0
        for y in range(region.shape[0]):
            for x in range(region.shape[1]):
                if region[y, x] / region.max() > 0.5:
                    drift = drift + (region[y, x] - first[y, x]).abs()
        (slope,) = torch.autograd.grad(score[key] - others - hold * drift, image)
        image = (image + 0.08 * slope / slope.abs().max()).clamp(low, high)
    return total


def peak_one(maps: Tensor) -> Tensor:
    assert maps.max() > 0
    return maps / maps.max()


def test_all_climbs_at_once_equal_one_class_of_one_image_after_another_with_grad_cam() -> None:
    method = classifier(iterations=6).double()  # a climb magnifies rounding
    image = images(method).double()
    cam = method.compute_cam(image, TAGS).cam
    for row, key in TAGS.nonzero().tolist():
        slow = one_climb(method, image[row : row + 1], key, rounds=6)
        torch.testing.assert_close(peak_one(cam[row, key]), peak_one(slow), atol=1e-9, rtol=0)


def test_one_round_shows_the_positive_part_of_the_plain_map() -> None:
    method = classifier(iterations=1)
    image = images(method)
    plain = small_method("cam").eval()
    plain.load_state_dict(method.state_dict())
    expected = plain.compute_cam(image).cam.detach()
    expected[TAGS > 0] = expected[TAGS > 0].relu()
    torch.testing.assert_close(method.compute_cam(image, TAGS).cam, expected)


def test_absent_classes_keep_their_plain_signed_map() -> None:
    method = classifier(iterations=3)
    image = images(method)
    cam = method.compute_cam(image, TAGS).cam
    plain = CAM.compute_cam(method, image).cam
    torch.testing.assert_close(cam[TAGS == 0], plain[TAGS == 0])
    assert not torch.allclose(cam[TAGS > 0], plain[TAGS > 0].relu(), rtol=1e-3)


def test_portions_only_save_memory() -> None:
    whole, portions = classifier(iterations=3), classifier(iterations=3, at_once=2)
    image = images(whole)
    torch.testing.assert_close(
        whole.compute_cam(image, TAGS).cam,
        portions.compute_cam(image, TAGS).cam,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_climb_runs_in_the_precision_asked_for_and_maps_come_out_in_float(precision) -> None:
    method = classifier(iterations=2)
    method.config = method.config.model_copy(update={"label_precision": precision})
    seen: list[torch.dtype] = []
    method.head.classifier.register_forward_hook(lambda *given: seen.append(given[2].dtype))
    cam = method.compute_cam(images(method), TAGS).cam
    assert cam.dtype == torch.float32
    assert set(seen) == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_the_climb_raises_its_class_above_the_others() -> None:
    method = classifier(hold=0.0)
    seen: list[Tensor] = []
    door = method.head.raw

    def watched(features: Tensor) -> Tensor:
        maps = door(features)
        seen.append(maps.detach().relu().mean((2, 3))[0])
        return maps

    method.head.raw = watched  # type: ignore[method-assign]
    method.compute_cam(images(method)[:1], TAGS[1:])
    lead = [float(2 * score[1] - score.sum()) for score in seen]
    assert len(lead) == 27
    assert lead[-1] > lead[13] > lead[0]


def test_the_discriminative_region_is_held() -> None:
    drifts = []
    for hold in (0.0, 7.0):
        method = classifier(hold=hold)
        image = images(method)[:1]
        first = CAM.compute_cam(method, image).cam[0, 1].relu().detach()
        strong = first > 0.5 * first.max()
        moved = 27 * method.compute_cam(image, TAGS[1:]).cam[0, 1] - 27 * first
        drifts.append(float(moved[strong].abs().mean()))
    assert drifts[1] < 0.8 * drifts[0]


def test_images_never_leave_their_own_range() -> None:
    method = classifier(step_size=5.0, iterations=4)
    image = images(method)[:1]
    seen: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    method.compute_cam(image, TAGS[1:])
    assert len(seen) == 5  # the untouched image, and the rounds
    assert not torch.allclose(seen[-1], image)
    assert min(one.min() for one in seen) >= image.min()
    assert max(one.max() for one in seen) <= image.max()


def test_half_size_has_fewer_rounds_that_count_twice() -> None:
    method, short = classifier(iterations=4, half_iterations=2), classifier(iterations=2)
    image = images(method)[:1]
    full, half = method.compute_multi_scale_cam(ScaledViews([image, image], [1.0, 0.5], TAGS[:1]))
    torch.testing.assert_close(full.cam, method.compute_cam(image, TAGS[:1]).cam)
    # The short one divides by its own 2 rounds; here 2 rounds count twice and are divided by 4.
    torch.testing.assert_close(half.cam, short.compute_cam(image, TAGS[:1]).cam)


def test_without_tags_the_classes_that_the_classifier_sees_climb() -> None:
    method = classifier(iterations=2)
    image = images(method)
    own = (method.class_logits(image) > 0).float()
    assert own.any()
    assert not own.all()
    torch.testing.assert_close(method.compute_cam(image).cam, method.compute_cam(image, own).cam)
    pair = torch.cat([image[:1], image[:1].flip(-1)])
    both = (method.class_logits(pair).mean(0, keepdim=True) > 0).float()
    seen = method.compute_multi_scale_cam(ScaledViews([pair], [1.0]))[0]
    torch.testing.assert_close(seen.cam, method.compute_cam(pair, both.expand(2, -1)).cam)


def test_class_probabilities_cost_no_climb() -> None:
    method = classifier()
    passes: list[int] = []
    method.backbone.register_forward_hook(lambda *_: passes.append(1))
    method.class_logits(images(method))
    assert len(passes) == 1


def test_labeling_leaves_weights_flags_and_gradients_alone() -> None:
    method = classifier(iterations=2)
    frozen = next(method.parameters()).requires_grad_(False)
    flags = [p.requires_grad for p in method.parameters()]
    before = {name: value.clone() for name, value in method.state_dict().items()}
    method.compute_cam(images(method), TAGS)
    method.backbone.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        method.compute_cam(images(method), TAGS)
    assert [p.requires_grad for p in method.parameters()] == flags
    assert not frozen.requires_grad
    assert all(p.grad is None for p in method.parameters())
    for name, value in method.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_test_time_climbs_every_scale_and_mirror_image_whatever_the_mode(mode) -> None:
    method = classifier(iterations=2, half_iterations=1)
    image = small_batch().image[:1]
    with mode():
        first, second = (
            predict_multi_scale(method, image, PredictConfig(), TAGS[:1]) for _ in range(2)
        )
    assert torch.equal(first.cam, second.cam)
    plain = predict_multi_scale(classifier(iterations=1), image, PredictConfig(), TAGS[:1])
    assert first.cam.shape == (1, 3, 64, 64)
    assert (first.cam - plain.cam)[0, :2].abs().amax((1, 2)).min() > 1e-3
    torch.testing.assert_close(first.cam[0, 2], plain.cam[0, 2])
    torch.testing.assert_close(first.probs, plain.probs)
