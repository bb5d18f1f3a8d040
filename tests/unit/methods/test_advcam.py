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
    """Return an AdvCAM with the weights of a `cam` network whose maps are not zero."""
    cam = small_method("cam")
    for layer in cam.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    method = small_method("advcam", label_precision="fp32", **changes)
    method.load_state_dict(cam.state_dict())
    assert isinstance(method, AdvCAM)
    return method.eval()


def images(method: AdvCAM) -> Tensor:
    return method.backbone.normalize(small_batch().image)


def slow_ascent(
    method: AdvCAM, image: Tensor, class_index: int, iterations: int, weight: float = 7.0
) -> Tensor:
    """Ascend one class of one (1, 3, h, w) image with Grad-CAM by autograd: a slow oracle."""
    low, high = image.min(), image.max()
    initial, total = None, 0
    for _ in range(iterations):
        image = image.detach().requires_grad_()
        features = method.backbone(image).maps[-1]
        maps = method.head(features)[1].clamp_min(0)[0]
        (gradient,) = torch.autograd.grad(maps[class_index].sum(), features, retain_graph=True)
        channel_weight = gradient.sum((0, 2, 3)) / max(int((gradient > 0).sum()), 1)
        grad_cam = torch.einsum("d,dhw->hw", channel_weight, features[0]).clamp_min(0)
        total = total + grad_cam.detach()
        initial = grad_cam.detach() if initial is None else initial
        score = maps.mean((1, 2))
        others = sum(score[k] for k in range(len(score)) if k != class_index)
        change = 0.0
        for y in range(grad_cam.shape[0]):
            for x in range(grad_cam.shape[1]):
                if grad_cam[y, x] / grad_cam.max() > 0.5:
                    change = change + (grad_cam[y, x] - initial[y, x]).abs()
        objective = score[class_index] - others - weight * change
        (gradient,) = torch.autograd.grad(objective, image)
        image = (image + 0.08 * gradient / gradient.abs().max()).clamp(low, high)
    return total


def scaled_to_peak(maps: Tensor) -> Tensor:
    assert maps.max() > 0
    return maps / maps.max()


def test_batched_ascent_equals_grad_cam_ascent_of_one_class_at_a_time() -> None:
    method = classifier(iterations=6).double()  # the ascent amplifies rounding
    image = images(method).double()
    cam = method.compute_cam(image, TAGS).cam
    for row, class_index in TAGS.nonzero().tolist():
        expected = slow_ascent(method, image[row : row + 1], class_index, iterations=6)
        torch.testing.assert_close(
            scaled_to_peak(cam[row, class_index]), scaled_to_peak(expected), atol=1e-9, rtol=0
        )


def test_one_iteration_gives_the_positive_part_of_the_plain_map() -> None:
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


def test_batch_size_does_not_change_the_maps() -> None:
    single, several = classifier(iterations=3), classifier(iterations=3, max_batch_size=2)
    image = images(single)
    torch.testing.assert_close(
        single.compute_cam(image, TAGS).cam,
        several.compute_cam(image, TAGS).cam,
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_ascent_runs_in_the_configured_precision_and_returns_float32(precision) -> None:
    method = classifier(iterations=2)
    method.config = method.config.model_copy(update={"label_precision": precision})
    dtypes: list[torch.dtype] = []
    method.head.classifier.register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    cam = method.compute_cam(images(method), TAGS).cam
    assert cam.dtype == torch.float32
    assert set(dtypes) == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_the_ascent_raises_its_class_above_the_others() -> None:
    method = classifier(regularization_weight=0.0)
    scores: list[Tensor] = []
    raw = method.head.raw

    def recording_raw(features: Tensor) -> Tensor:
        maps = raw(features)
        scores.append(maps.detach().relu().mean((2, 3))[0])
        return maps

    method.head.raw = recording_raw  # type: ignore[method-assign]
    method.compute_cam(images(method)[:1], TAGS[1:])
    lead = [float(2 * score[1] - score.sum()) for score in scores]
    assert len(lead) == 27
    assert lead[-1] > lead[13] > lead[0]


def test_regularization_holds_the_discriminative_region() -> None:
    changes = []
    for weight in (0.0, 7.0):
        method = classifier(regularization_weight=weight)
        image = images(method)[:1]
        initial = CAM.compute_cam(method, image).cam[0, 1].relu().detach()
        region = initial > 0.5 * initial.max()
        change = 27 * method.compute_cam(image, TAGS[1:]).cam[0, 1] - 27 * initial
        changes.append(float(change[region].abs().mean()))
    assert changes[1] < 0.8 * changes[0]


def test_images_stay_in_their_own_value_range() -> None:
    method = classifier(step_size=5.0, iterations=4)
    image = images(method)[:1]
    inputs: list[Tensor] = []
    method.backbone.register_forward_pre_hook(lambda _, args: inputs.append(args[0].detach()))
    method.compute_cam(image, TAGS[1:])
    assert len(inputs) == 5  # the original image and four iterations
    assert not torch.allclose(inputs[-1], image)
    assert min(view.min() for view in inputs) >= image.min()
    assert max(view.max() for view in inputs) <= image.max()


def test_half_size_has_half_the_iterations_and_counts_half() -> None:
    method, short = classifier(iterations=4, half_iterations=2), classifier(iterations=2)
    image = images(method)[:1]
    tags = TAGS[:1]
    full, half = method.compute_multi_scale_cam(ScaledViews([image, image], [1.0, 0.5], tags))
    torch.testing.assert_close(full.cam, method.compute_cam(image, tags).cam)
    # Both add up 2 maps; `short` divides by its 2 iterations, the half size by the 4 of scale 1.
    by_hand = short.compute_cam(image, tags).cam[tags > 0] / 2
    torch.testing.assert_close(half.cam[tags > 0], by_hand)


def slow_pair_ascent(
    method: AdvCAM, pair: Tensor, class_index: int, iterations: int
) -> tuple[Tensor, Tensor]:
    """Ascend one class of an image and its flipped copy together, as published: a slow oracle."""
    low, high = pair.min(), pair.max()
    initial, totals = None, [0, 0]
    for _ in range(iterations):
        pair = pair.detach().requires_grad_()
        features = method.backbone(pair).maps[-1]
        maps = method.head(features)[1].clamp_min(0)  # (2, F, h, w)
        (gradient,) = torch.autograd.grad(maps[:, class_index].sum(), features, retain_graph=True)
        count = max(int((gradient > 0).sum()), 1)  # of both views
        grad_cams = [
            torch.einsum("d,dhw->hw", gradient[view].sum((1, 2)) / count, features[view]).relu()
            for view in (0, 1)
        ]
        totals = [total + one.detach() for total, one in zip(totals, grad_cams, strict=True)]
        region_map = grad_cams[0] + grad_cams[1].flip(-1)
        initial = region_map.detach() if initial is None else initial
        change = 0.0
        for y in range(region_map.shape[0]):
            for x in range(region_map.shape[1]):
                if region_map[y, x] / region_map.max() > 0.5:
                    change = change + (region_map[y, x] - initial[y, x]).abs()
        score = maps.mean((2, 3))
        objective = 2 * score[:, class_index].sum() - score.sum() - 7 * change
        (gradient,) = torch.autograd.grad(objective, pair)
        pair = (pair + 0.08 * gradient / gradient.abs().max()).clamp(low, high)
    return totals[0], totals[1]


@pytest.mark.slow
@pytest.mark.parametrize("max_batch_size", [16, 3, 1])
def test_an_image_and_its_flipped_copy_ascend_together_as_published(max_batch_size: int) -> None:
    method = classifier(iterations=5, max_batch_size=max_batch_size).double()
    image = images(method).double()[:1]
    pair, tags = torch.cat([image, image.flip(-1)]), TAGS[:1].double()
    (output,) = method.compute_multi_scale_cam(ScaledViews([pair], [1.0], tags))
    for class_index in (0, 1):
        expected = slow_pair_ascent(method, pair, class_index, iterations=5)
        for view in (0, 1):
            torch.testing.assert_close(
                scaled_to_peak(output.cam[view, class_index]),
                scaled_to_peak(expected[view]),
                atol=1e-9,
                rtol=0,
            )


def test_without_tags_the_predicted_classes_ascend() -> None:
    method = classifier(iterations=2)
    image = images(method)
    predicted = (method.class_logits(image) > 0).float()
    assert predicted.any()
    assert not predicted.all()
    expected = method.compute_cam(image, predicted).cam
    torch.testing.assert_close(method.compute_cam(image).cam, expected)
    pair = torch.cat([image[:1], image[:1].flip(-1)])
    both = (method.class_logits(pair).mean(0, keepdim=True) > 0).float()
    (output,) = method.compute_multi_scale_cam(ScaledViews([pair], [1.0]))
    (tagged,) = method.compute_multi_scale_cam(ScaledViews([pair], [1.0], both))
    torch.testing.assert_close(output.cam, tagged.cam)


def test_class_probabilities_need_no_ascent() -> None:
    method = classifier()
    passes: list[int] = []
    method.backbone.register_forward_hook(lambda *_: passes.append(1))
    method.class_logits(images(method))
    assert len(passes) == 1


def test_labeling_does_not_change_weights_flags_or_gradients() -> None:
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
def test_inference_ascends_every_scale_and_flip_in_any_gradient_mode(mode) -> None:
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
