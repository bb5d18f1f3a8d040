"""Every method trains on a GPU as on the CPU, and its step never waits for the device."""

import dataclasses
from typing import Any

import pytest
import torch
from tests.conformance.stand_ins import METHODS, small_batch
from tests.gpu.parity import DEVICE, HostDraws, exact_arithmetic, pair
from torch import nn

from tag2mask import plugins
from tag2mask.config.recipe import parse_recipe
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.types import Batch

pytestmark = pytest.mark.gpu

LATE = 9
"""A step after every warm-up of a 10-step run."""
STEPS = 3
WITHOUT_ENERGY: dict[str, dict[str, Any]] = {"rrm": {"energy_weight": 0.0}}
"""The size of the energy's lattice depends on the image, so the host must wait for it."""


def train(method: Method, device: torch.device, *, bf16: bool) -> list[dict[str, float]]:
    """Take steps of plain gradient descent, whose updates are as exact as the gradients."""
    method.train()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()  # statistics of two small images would multiply every rounding error
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=1e-3)
    torch.manual_seed(5)
    history = []
    for step in range(STEPS):
        batch = small_batch(seed=step).to(device)
        with HostDraws(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            losses = method.losses(batch, LATE)
        optimizer.zero_grad()
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        optimizer.step()
        history.append({name: loss.item() for name, loss in losses.items()})
    return history


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_in_float32_equal_those_on_the_cpu(name: str) -> None:
    both = pair(name)
    start = {key: value.detach().clone() for key, value in both.cpu.named_parameters()}
    with exact_arithmetic():
        cpu = train(both.cpu, torch.device("cpu"), bf16=False)
        gpu = train(both.gpu, DEVICE, bf16=False)
    for mine, theirs in zip(gpu, cpu, strict=True):
        assert mine.keys() == theirs.keys()
        for loss, value in theirs.items():
            assert mine[loss] == pytest.approx(value, rel=5e-3, abs=5e-4), loss
    trained = dict(both.gpu.named_parameters())
    for key, value in both.cpu.named_parameters():
        change = value - start[key]
        gap = (trained[key].cpu() - value).norm()
        assert gap <= 0.1 * change.norm() + 3e-5 * (1 + value.norm()), key


@pytest.mark.parametrize("name", METHODS)
def test_three_steps_in_bf16_stay_near_those_on_the_cpu_in_float32(name: str) -> None:
    both = pair(name)
    cpu = train(both.cpu, torch.device("cpu"), bf16=False)
    gpu = train(both.gpu, DEVICE, bf16=True)
    for mine, theirs in zip(gpu, cpu, strict=True):
        for loss, value in theirs.items():
            assert mine[loss] == pytest.approx(value, rel=0.2, abs=0.06), loss


@pytest.mark.parametrize("name", METHODS)
def test_the_host_never_waits_for_the_device_within_a_step(name: str) -> None:
    method = pair(name, **WITHOUT_ENERGY.get(name, {})).gpu.train()
    assert_no_wait(method, small_batch())


@pytest.mark.parametrize("name", ["rml", "afa"])
def test_the_host_never_waits_with_the_mix_transformer(name: str) -> None:
    """Its blocks skip random images, which are drawn on the host."""
    recipe = parse_recipe(
        {
            "data": {"name": "synthetic", "classes": ("blob", "ring", "stripe"), "crop_px": 64},
            "backbone": {"name": "mit", "variant": "b0", "weights": "none", "drop_path": 0.5},
            "method": {"name": name},
            "refiner": {"name": "par", "iterations": 2},
            "optim": {"steps": 10, "batch_size": 2},
        },
        "small recipe",
    )
    assert_no_wait(build_method(recipe).to(DEVICE).train(), small_batch())


def assert_no_wait(method: Method, batch: Batch) -> None:
    """Fail where torch would wait; the first step may, because it fills caches."""
    fields = {key: getattr(batch, key) for key in ("image", "tags", "valid", "mask")}
    pinned = {key: value.pin_memory() for key, value in fields.items()}
    batch = dataclasses.replace(batch, **pinned)
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], fused=True)
    for mode in ("default", "error"):
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", torch.bfloat16):
                losses = method.losses(batch.to(DEVICE), LATE)
            torch.stack([loss.float() for loss in losses.values()]).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_every_backbone_gives_the_maps_of_the_cpu() -> None:
    from tests.conformance.test_models import SMALLEST

    image = torch.rand(2, 3, 64, 96)
    for name in plugins.available("models.backbones"):
        kind = plugins.load("models.backbones", name)
        torch.manual_seed(0)
        backbone = kind(kind.Config(name=name, weights="none", **SMALLEST.get(name, {}))).eval()
        with torch.no_grad(), exact_arithmetic():
            expected = backbone(image).maps
            maps = backbone.to(DEVICE)(image.to(DEVICE)).maps
        for mine, theirs in zip(maps, expected, strict=True):
            torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-3, atol=1e-3, msg=name)
