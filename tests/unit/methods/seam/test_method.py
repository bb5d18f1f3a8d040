"""The switches of SEAM on a whole small network, and which part learns from which loss."""

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
    built = small_method("seam", **changes)
    assert isinstance(built, SEAM)
    return built.train()


def losses(**changes: Any) -> Mapping[str, Tensor]:
    return method(**changes).losses(small_batch(), 0)


def reached(seam: SEAM, loss: Tensor) -> set[str]:
    """First names of the parts that get a gradient."""
    seam.zero_grad()
    loss.backward(retain_graph=True)
    return {
        name.split(".")[0]
        for name, p in seam.named_parameters()
        if p.grad is not None and p.grad.any()
    }


@pytest.fixture
def views(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sides of every look of the backbone while the test runs."""
    seen: list[int] = []
    kind = type(method().backbone)
    forward = kind.forward

    def spy(self: Any, image: Tensor, *, attention: bool = False) -> Any:
        seen.append(image.shape[-1])
        return forward(self, image, attention=attention)

    monkeypatch.setattr(kind, "forward", spy)
    return seen


def test_ecr_and_the_weakest_cells_teach_pcm_alone_and_er_the_network() -> None:
    seam = method()
    found = seam.losses(small_batch(), 0)
    assert set(found) == {"classification", "min_pooling", "er", "ecr"}
    assert reached(seam, found["ecr"]) == {"pcm"}
    assert reached(seam, found["min_pooling"]) == {"pcm"}
    assert reached(seam, found["er"]) == {"backbone", "head"}
    assert reached(seam, found["classification"]) == {"backbone", "head"}


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
def test_every_row_of_the_ablation_computes_what_it_needs(
    views: list[int], changes: dict[str, Any], names: set[str], sides: list[int]
) -> None:
    assert set(losses(small_scale=0.5, **changes)) == names
    assert views == sides


def test_without_its_parts_it_is_the_plain_classifier() -> None:
    seam, plain = method(pcm=False, er=0, ecr=0), small_method("cam").train()
    plain.load_state_dict(seam.state_dict())
    batch = small_batch()
    torch.testing.assert_close(dict(seam.losses(batch, 0)), dict(plain.losses(batch, 0)))


def test_ecr_without_pcm_is_rejected_in_one_line() -> None:
    with pytest.raises(RecipeError, match=r"method\.ecr: .*pcm") as caught:
        method(pcm=False)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_cam_is_what_pcm_gathers() -> None:
    seam, image = method(), torch.rand(2, 3, 64, 48)  # untrained: by the batch's statistics
    found = seam.compute_cam(image)
    assert found.cam.shape == (2, NUM_FOREGROUND, 4, 3)
    assert found.cam.min() >= 0
    assert found.cam.max() <= 1
    seam.pcm = None
    plain = seam.compute_cam(image)
    torch.testing.assert_close(found.logits, plain.logits)
    torch.testing.assert_close(seam.class_logits(image), plain.logits)
    assert not torch.allclose(found.cam, plain.cam)


def test_absent_classes_take_no_part_in_the_equivariance() -> None:
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
def test_the_host_never_waits_for_the_device(pooling: str) -> None:
    seam, batch = method(pooling=pooling), small_batch()
    with NoWaiting():
        sum(seam.losses(batch, 0).values()).backward()
