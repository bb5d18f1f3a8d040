"""The options of SEAM on a small network, and which part learns from which loss."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.conformance.no_waiting import NoWaiting
from tests.conformance.stand_ins import NUM_FOREGROUND, small_batch, small_method
from torch import Tensor

from tag2mask.errors import RecipeError
from tag2mask.methods.seam.method import SEAM


def method(**changes: Any) -> SEAM:
    """Return SEAM without dropout, so that two steps can be compared."""
    built = small_method("seam", **({"dropout": 0.0} | changes))
    assert isinstance(built, SEAM)
    return built.train()


def losses(**changes: Any) -> Mapping[str, Tensor]:
    return method(**changes).losses(small_batch(), 0)


def reached(seam: SEAM, loss: Tensor) -> set[str]:
    """Names of the top-level parts that get a gradient."""
    seam.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, p in seam.named_parameters()
        if p.grad is not None and p.grad.any()
    }


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Record the image side of every pass of the backbone."""
    sides: list[int] = []
    kind = type(method().backbone)
    forward = kind.forward

    def spy(self: Any, image: Tensor, *, attention: bool = False) -> Any:
        sides.append(image.shape[-1])
        return forward(self, image, attention=attention)

    monkeypatch.setattr(kind, "forward", spy)
    return sides


def test_ecr_and_min_pooling_train_only_pcm_and_er_trains_the_network() -> None:
    seam = method()
    values = seam.losses(small_batch(), 0)
    assert set(values) == {"classification", "min_pooling", "er", "ecr"}
    assert reached(seam, values["ecr"]) == {"pcm"}
    assert reached(seam, values["min_pooling"]) == {"pcm"}
    assert reached(seam, values["er"]) == {"backbone", "head"}
    assert reached(seam, values["classification"]) == {"backbone", "head"}


@pytest.mark.parametrize(
    ("changes", "names", "sides"),
    [
        ({}, {"classification", "min_pooling", "er", "ecr"}, [64, 32]),
        ({"pcm": False, "ecr": 0}, {"classification", "er"}, [64, 32]),
        ({"ecr": 0}, {"classification", "min_pooling", "er"}, [64, 32]),
        ({"er": 0}, {"classification", "min_pooling", "ecr"}, [64, 32]),
        ({"min_pooling": 0}, {"classification", "er", "ecr"}, [64, 32]),
        ({"er": 0, "ecr": 0}, {"classification", "min_pooling"}, [64]),
        ({"pcm": False, "er": 0, "ecr": 0}, {"classification"}, [64]),
    ],
)
def test_every_row_of_the_ablation_computes_only_its_losses(
    views: list[int], changes: dict[str, Any], names: set[str], sides: list[int]
) -> None:
    assert set(losses(small_scale=0.5, **changes)) == names
    assert views == sides


def test_without_its_losses_seam_equals_the_cam_baseline() -> None:
    seam, plain = method(pcm=False, er=0, ecr=0), small_method("cam").train()
    plain.load_state_dict(seam.state_dict())
    batch = small_batch()
    torch.testing.assert_close(dict(seam.losses(batch, 0)), dict(plain.losses(batch, 0)))


def test_the_classifier_starts_from_xaviers_rule_after_dropout() -> None:
    seam = small_method("seam", width=0)
    fan_out, fan_in = seam.head.classifier.weight.shape[:2]
    bound = (6 / (fan_in + fan_out)) ** 0.5
    assert 0.9 * bound < seam.head.classifier.weight.abs().max() <= bound
    assert seam.head.dropout.p == 0.5


def test_ecr_without_pcm_is_rejected() -> None:
    with pytest.raises(RecipeError, match=r"method\.ecr: .*pcm") as caught:
        method(pcm=False)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_the_cam_is_the_map_of_pcm() -> None:
    seam, image = method(), torch.rand(2, 3, 64, 48)  # training mode, with batch statistics
    output = seam.compute_cam(image)
    assert output.cam.shape == (2, NUM_FOREGROUND, 4, 3)
    assert output.cam.min() >= 0
    assert output.cam.max() <= 1
    seam.pcm = None
    plain = seam.compute_cam(image)
    torch.testing.assert_close(output.logits, plain.logits)
    torch.testing.assert_close(seam.class_logits(image), plain.logits)
    assert not torch.allclose(output.cam, plain.cam)


def test_absent_classes_do_not_change_the_equivariance_loss() -> None:
    seam, batch = method(), small_batch()
    seam.head.classifier.weight.data.mul_(10)
    before = seam.losses(batch, 0)
    seam.head.classifier.weight.data[2].normal_()  # absent from both images
    after = seam.losses(batch, 0)
    torch.testing.assert_close(before["er"], after["er"])


@pytest.mark.parametrize("changes", [{"pooling": "gpp"}, {"pooling": "gmp"}, {"width": 16}])
def test_every_pooling_trains(changes: dict[str, Any]) -> None:
    seam = method(**changes)
    sum(seam.losses(small_batch(), 0).values()).backward()
    for name, parameter in seam.named_parameters():
        if name.startswith(("head.", "pcm.")):
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name
            assert torch.isfinite(parameter.grad).all(), name


@pytest.mark.parametrize("pooling", ["gap", "gpp"])
def test_a_step_does_not_wait_for_the_device(pooling: str) -> None:
    seam, batch = method(pooling=pooling), small_batch()
    with NoWaiting():
        sum(seam.losses(batch, 0).values()).backward()
