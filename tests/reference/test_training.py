"""Thirty steps of RML and AFA follow a training that is written down a second time in float64.

Both train the heads on a network without weights, by plain gradient descent: classification first,
then all losses, and for AFA propagated labels in the end.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tests.reference import afa_oracle, afa_step_oracle, rml_oracle
from tests.reference.scripted_network import (
    NUM_FOREGROUND,
    WIDTH,
    ScriptedBackbone,
    block_means,
    normalized,
    raw_cam,
    scripted_batch,
)
from torch import Tensor, nn

from tag2mask.methods.afa import AFA, AFAConfig
from tag2mask.methods.base import Method
from tag2mask.methods.rml.method import RML, RMLConfig
from tag2mask.refiners.par import PAR, ParConfig

STEPS, WARMUP, PROPAGATE_FROM = 30, 10, 20
RATE = 0.05
SIDE, SMALL = 64, 32
GRID, SMALL_GRID, LARGE_GRID = (4, 4), (2, 2), (6, 6)
RADIUS, SMALL_RADIUS = 2, 1
PAR_SETTINGS = (1, (1, 4))
SCORES = (0.55, 0.35)
BATCH = scripted_batch(side=SIDE)
SEED = 8
Curve = list[dict[str, float]]


class LinearDecoder(nn.Module):
    """A decoder with one weight, in place of SegFormer's."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(NUM_FOREGROUND + 1, WIDTH))

    def forward(self, maps: tuple[Tensor, ...]) -> Tensor:
        return torch.einsum("cd,ndhw->nchw", self.weight, maps[-1])


def build(name: str) -> Method:
    torch.manual_seed(SEED)  # with which no CAM of a tag is empty
    backbone, par = ScriptedBackbone(), PAR(ParConfig(iterations=1, dilations=PAR_SETTINGS[1]))
    shared = {"pooling": "gap", "warmup": WARMUP, "radius": RADIUS, "scale_logits": True}
    if name == "rml":
        config = RMLConfig(**shared, small_scale=0.5, small_radius=SMALL_RADIUS)
        return RML(config, backbone, NUM_FOREGROUND, par, STEPS).train()
    config = AFAConfig(**shared, propagate_from=PROPAGATE_FROM)
    afa = AFA(config, backbone, NUM_FOREGROUND, par, STEPS).train()
    afa.decoder = LinearDecoder()
    return afa


def trained_curve(method: Method) -> Curve:
    """Train with torch's optimizer and record the losses of every step."""
    optimizer, curve = torch.optim.SGD(method.parameters(), lr=RATE), []
    for step in range(STEPS):
        losses = method.losses(BATCH, step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        curve.append({name: loss.item() for name, loss in losses.items()})
    return curve


class Reference:
    """The same training from the formulas; starts from copies of the weights of a method."""

    def __init__(self, method: Method) -> None:
        self.network = method.backbone
        self.weights = {
            name: parameter.detach().double().clone().requires_grad_()
            for name, parameter in method.named_parameters()
        }
        self.gain = ScriptedBackbone.head_dim**-0.5  # `scale_logits`
        self.images = [normalized(image) for image in BATCH.image]
        self.maps = self.features(torch.from_numpy(np.stack(self.images)))
        small = np.stack([afa_oracle.resize(image, (SMALL, SMALL)) for image in self.images])
        self.small_maps = self.features(torch.from_numpy(small))

    def features(self, image: Tensor) -> list[Tensor]:
        return [self.network.mixed(block_means(image, block)) for block in (4, 8, 16, 16)]

    @property
    def classifier(self) -> Tensor:
        return self.weights["head.classifier.weight"][:, :, 0, 0]

    def cam(self, maps: list[Tensor]) -> Tensor:
        return torch.einsum("fd,ndhw->nfhw", self.classifier, maps[3])

    def affinity_logits(self, features: Tensor) -> Tensor:
        """2.1, R10: S + S^T of every head, weighted."""
        weight, bias = self.weights["affinity.weight"], self.weights["affinity.bias"]
        heads = torch.cat(
            [block.query @ block.key.mT for block in self.network.blocks(features)], 1
        )
        total = torch.einsum("k,nkij->nij", weight * self.gain, heads + heads.mT)
        return total + bias

    def context(self, maps: list[Tensor]) -> Tensor:
        """R6: resize, concatenate, convolve, normalize by batch statistics, clamp at 0."""
        size = tuple(maps[0].shape[2:])
        levels = [
            torch.stack([rml_oracle.resize(plane, size) for plane in level.flatten(0, 1)])
            for level in maps
        ]
        wide = torch.cat([level.view(len(maps[0]), -1, *size) for level in levels], dim=1)
        fused = torch.einsum("kd,ndhw->nkhw", self.weights["neck.conv.weight"][:, :, 0, 0], wide)
        mean = fused.mean(dim=(0, 2, 3), keepdim=True)
        variance = ((fused - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        return torch.clamp((fused - mean) / torch.sqrt(variance + 1e-5), min=0)

    def labels(self, *, propagates: bool) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Refined labels, and those of the decoder."""
        refined, target = [], []
        weight = self.classifier.detach()
        for pixels, image, tags in zip(BATCH.image, self.images, BATCH.tags.tolist(), strict=True):
            rgb = pixels.double().numpy()
            cam = afa_oracle.multi_scale_cam(
                lambda view: raw_cam(self.network, weight, view), image, (1, 0.5, 1.5)
            )
            refined.append(afa_oracle.pseudo_label(rgb, cam, tags, SCORES, *PAR_SETTINGS))
            if propagates:
                view = torch.from_numpy(afa_oracle.resize(image, (SIDE * 3 // 2, SIDE * 3 // 2)))
                logits = self.affinity_logits(self.features(view[None])[3])[0].detach()
                affinity = (1 / (1 + torch.exp(-logits))).numpy()
                rest = (affinity, LARGE_GRID, (0, SIDE, 0, SIDE), SCORES, RADIUS, PAR_SETTINGS)
                target.append(afa_oracle.propagated_label(rgb, cam, tags, *rest))
        return refined, target or refined

    def rml(self) -> dict[str, Tensor]:
        large, small = (
            {"cam": self.cam(maps), "features": maps[3]} for maps in (self.maps, self.small_maps)
        )
        batch = {"tags": BATCH.tags, "valid": BATCH.valid}
        contexts = self.context(self.maps), self.context(self.small_maps)
        logits = [self.affinity_logits(maps[3]) for maps in (self.maps, self.small_maps)]
        labels, _ = self.labels(propagates=False)
        grids, radii = (GRID, SMALL_GRID), (RADIUS, SMALL_RADIUS)
        return {
            "ciml": 0.1 * rml_oracle.ciml(large, small, batch, (SMALL, SMALL), 0.1),
            "mfml": 0.1 * rml_oracle.mfml(*contexts, BATCH.valid, 100),
            "apml": 0.1 * rml_oracle.apml(*logits, labels, grids, radii, 100),
        }

    def afa(self, *, propagates: bool) -> dict[str, Tensor]:
        refined, target = self.labels(propagates=propagates)
        decoded = torch.einsum("cd,ndhw->nchw", self.weights["decoder.weight"], self.maps[3])
        logits = self.affinity_logits(self.maps[3])
        return {
            "segmentation": 0.1 * afa_step_oracle.segmentation(decoded, target),
            "affinity": 0.1 * afa_step_oracle.affinity(logits, refined, GRID, RADIUS),
        }

    def curve(self, name: str) -> Iterator[dict[str, float]]:
        """Train by gradient descent."""
        for step in range(STEPS):
            logits = self.cam(self.maps).mean(dim=(2, 3))
            losses = {"classification": rml_oracle.classification(logits, BATCH.tags)}
            if step >= WARMUP:
                late = step >= PROPAGATE_FROM
                losses |= self.rml() if name == "rml" else self.afa(propagates=late)
            sum(losses.values()).backward()
            for weight in self.weights.values():
                if weight.grad is not None:
                    weight.data -= RATE * weight.grad
                    weight.grad = None
            yield {name: loss.item() for name, loss in losses.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["rml", "afa"])
def test_thirty_steps_follow_the_reference(name: str) -> None:
    method = build(name)
    reference = list(Reference(method).curve(name))
    curve = trained_curve(method)
    for step, (got, expected) in enumerate(zip(curve, reference, strict=True)):
        assert got == pytest.approx(expected, rel=2e-3), step
    first, last = curve[WARMUP], curve[-1]
    assert last["classification"] < curve[0]["classification"]
    assert all(last[part] != pytest.approx(first[part], rel=1e-2) for part in first)
