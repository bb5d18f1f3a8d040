"""Every method in the folder fulfills the contract; a new method needs no test of its own here."""

import pickle
from dataclasses import replace

import pytest
import torch
from tests.conformance.stand_ins import METHODS, NUM_FOREGROUND, small_batch, small_method

from tag2mask.config.schema import PredictConfig
from tag2mask.functional.cam import normalize_cam, upsample
from tag2mask.inference.multi_scale import (
    images_per_pass,
    predict_multi_scale,
    predict_together,
)
from tag2mask.inference.postprocessing import PostProcessor, select_maps
from tag2mask.methods.base import Method
from tag2mask.methods.true_masks import true_mask_loss
from tag2mask.types import IGNORE, Batch

LATE = 9
"""A step after every warm-up of a 10-step run."""
RATES = {"irn": 1e-2, "rml": 5e-4}
"""Learning rates other than 1e-3. IRN trains one small branch, at 0.1 in its paper. At 1e-3 RML's
pseudo-labels change within 30 steps and its loss rises again."""


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return small_method(request.param)


@pytest.mark.parametrize("step", [0, LATE])
def test_losses_are_finite_named_scalars(method: Method, step: int) -> None:
    losses = method.train().losses(small_batch(), step)
    assert losses
    for name, loss in losses.items():
        assert loss.shape == (), name
        assert torch.isfinite(loss), name


def test_bf16_autocast_keeps_losses_and_gradients_finite(method: Method) -> None:
    with torch.no_grad():  # saturate outputs that end in a sigmoid
        for name, parameter in method.named_parameters():
            if "affinity" in name or "classifier" in name:
                parameter.mul_(100)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = method.train().losses(small_batch(), LATE)
    sum(loss.float() for loss in losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


def test_monitored_values_have_no_gradient(method: Method) -> None:
    method.train().losses(small_batch(), LATE)
    assert not any(value.requires_grad for value in method.monitor.values())


def test_every_trainable_parameter_gets_a_gradient(method: Method) -> None:
    """Within two steps: zero-initialized layers pass no gradient at first."""
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-2)
    reached = set()
    for _ in range(2):
        optimizer.zero_grad()
        sum(method.train().losses(small_batch(), LATE).values()).backward()
        optimizer.step()
        reached |= {n for n, p in method.named_parameters() if p.grad is not None and p.grad.any()}
    assert {n for n, p in method.named_parameters() if p.requires_grad} <= reached


def one_true_mask() -> Batch:
    """A batch in which only the second image has a mask."""
    batch = small_batch()
    mask = batch.mask.clone()
    mask[0] = IGNORE
    return replace(batch, mask=mask, masked_rows=(1,))


def test_true_masks_add_one_loss_or_replace_the_labels_of_a_method_that_reads_masks(
    method: Method,
) -> None:
    losses = method.train()(one_true_mask(), 0)
    assert ("true_masks" in losses) == (not method.reads_masks)
    assert "true_masks" not in method.train()(small_batch(), 0)
    if method.reads_masks or method.works_while_labeling:  # no such loss, or no map that is trained
        return
    loss = losses["true_masks"]
    assert loss.shape == ()
    assert loss > 0
    loss.backward()
    reached = [p.grad for p in method.parameters() if p.grad is not None and p.grad.any()]
    assert reached
    assert all(torch.isfinite(gradient).all() for gradient in reached)


def test_an_image_without_true_mask_adds_nothing_to_that_loss(method: Method) -> None:
    if method.reads_masks:
        pytest.skip("has no such loss")
    batch = one_true_mask()
    image = batch.image.clone()
    image[0] = 255 - image[0]
    changed = replace(batch, image=image)
    values = []
    for one in (batch, changed):
        torch.manual_seed(4)
        values.append(true_mask_loss(method.train(), one).item())
    assert values[0] == values[1]


def test_parameter_groups_contain_each_trainable_parameter_once(method: Method) -> None:
    grouped = [id(p) for group in method.parameter_groups() for p in group.parameters]
    assert sorted(grouped) == sorted(id(p) for p in method.parameters() if p.requires_grad)


@pytest.mark.parametrize("size", [(64, 64), (33, 47), (32, 100)])
@torch.no_grad()
def test_the_normalized_cam_has_the_images_size_and_is_in_0_to_1(
    method: Method, size: tuple[int, int]
) -> None:
    image = torch.rand(2, 3, *size)
    cam = normalize_cam(upsample(method.eval().compute_cam(image).cam, size).relu())
    assert cam.shape == (2, NUM_FOREGROUND, *size)
    assert cam.min() >= 0
    assert cam.max() <= 1


@pytest.mark.parametrize("flip", [False, True])
def test_images_that_share_a_pass_get_what_each_gets_alone(method: Method, flip: bool) -> None:
    config = PredictConfig(batch_size=3, scales=(1.0, 0.5), long_side_px=64, flip=flip)
    method.eval()
    if images_per_pass(method, config, "cpu") == 1:
        assert method.works_while_labeling
        return
    generator = torch.Generator().manual_seed(0)
    images = [
        torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=generator)
        for size in ((48, 64), (96, 128), (48, 64))  # all become 48 x 64
    ]
    tags = torch.eye(3)
    together = predict_together(method, images, config, tags)
    for at, (image, shared) in enumerate(zip(images, together, strict=True)):
        alone = predict_multi_scale(method, image, config, tags[at : at + 1])
        for name, expected in alone._asdict().items():
            if name != "cam_range":  # the CAM covers it, relative to its own size
                torch.testing.assert_close(getattr(shared, name), expected, atol=1e-4, rtol=1e-4)


def test_nothing_shares_a_pass_with_propagation_or_by_default_on_a_cpu(method: Method) -> None:
    propagated = PredictConfig(batch_size=3, propagate=True)
    assert images_per_pass(method, propagated, "cuda") == 1
    assert images_per_pass(method, PredictConfig(), "cpu") == 1
    expected = 1 if method.works_while_labeling else 8
    assert images_per_pass(method, PredictConfig(), "cuda") == expected


@torch.no_grad()
def test_a_mask_contains_no_class_without_its_tag(method: Method) -> None:
    config = PredictConfig(refine=False, long_side_px=64)
    image = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    output = predict_multi_scale(method.eval(), image, config, torch.tensor([[0.0, 1.0, 0.0]]))
    mask = PostProcessor(config, None, None)(image, select_maps(output, (1,), 0.45)).mask
    assert set(mask.unique().tolist()) <= {0, 2}


@torch.no_grad()
def test_class_probabilities_have_one_entry_per_class(method: Method) -> None:
    probs = method.eval().class_logits(torch.rand(2, 3, 64, 64)).sigmoid()
    assert probs.shape == (2, NUM_FOREGROUND)
    assert probs.min() >= 0
    assert probs.max() <= 1


@torch.no_grad()
def test_an_image_gives_the_same_cam_alone_and_in_a_batch(method: Method) -> None:
    method.eval()
    images = torch.rand(2, 3, 64, 64)
    batch, single = method.compute_cam(images), method.compute_cam(images[1:])
    torch.testing.assert_close(batch.cam[1:], single.cam, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(batch.logits[1:], single.logits, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_affinity_is_symmetric_over_the_feature_grid(method: Method) -> None:
    maps = method.eval().attention_maps(torch.rand(1, 3, 48, 64))
    if "affinity" in maps:
        affinity = maps["affinity"]
        assert affinity.shape == (1, 12, 12)
        torch.testing.assert_close(affinity, affinity.transpose(1, 2))


@pytest.mark.parametrize("name", METHODS)
def test_same_seed_gives_the_same_losses(name: str) -> None:
    runs = []
    for _ in range(2):
        method = small_method(name).train()
        torch.manual_seed(3)
        runs.append({k: v.item() for k, v in method.losses(small_batch(), LATE).items()})
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", METHODS)
def test_the_state_dict_survives_a_round_trip(name: str) -> None:
    first, second = small_method(name), small_method(name)
    with torch.no_grad():
        for parameter in second.parameters():
            parameter.add_(1)
    second.load_state_dict(first.state_dict())
    image = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(
        first.eval().compute_cam(image).cam, second.eval().compute_cam(image).cam
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_loss_falls_in_30_steps(name: str) -> None:
    method = small_method(name).train()
    trained = [p for p in method.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATES.get(name, 1e-3))
    totals = []
    for _ in range(30):
        loss = sum(method.losses(small_batch(), LATE).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        totals.append(loss.item())
    assert sum(totals[-5:]) < 0.8 * sum(totals[:5])


def test_method_can_be_sent_to_another_process(method: Method) -> None:
    again = pickle.loads(pickle.dumps(method))
    for name, value in method.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
