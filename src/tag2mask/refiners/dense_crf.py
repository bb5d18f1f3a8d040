"""Dense CRF: every pixel agrees with all others, the more the nearer and the more alike they are.

Mean field with a Gaussian kernel of places and a bilateral one of places and colors, Potts model,
on the permutohedral lattice: compiled loops on the CPU, plain torch elsewhere. Channels that are 0
all over the image (classes it does not show) are left out of the work and stay 0.

Source:
    Krähenbühl, Koltun: Efficient inference in fully connected CRFs with Gaussian edge potentials,
    2011; settings as in Specification 5.1. Equal to the package pydensecrf2.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat
from torch import Tensor

from tag2mask.config.schema import RefinerConfig
from tag2mask.errors import DataError
from tag2mask.functional.lattice import (
    MEMORY_MIB,
    bilateral_features,
    in_threads,
    most_corners,
    position_features,
)
from tag2mask.functional.lattice_cpu import CpuLattice, build_cpu_lattice
from tag2mask.functional.lattice_torch import build_torch_lattice
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.dense_crf_cpu import NEVER, cpu_mean_field

LEAST_PROBABILITY = 1e-5
"""Unary probabilities are raised to this before their logarithm is taken."""
_FEATURES = 2 + 5
"""Place; place and color."""
_SIMPLEX = 3 + 6
"""Corners of a pixel's simplices: one more than features in each."""


class DenseCRFConfig(RefinerConfig):
    """Settings of the dense CRF; the defaults are AFA's for final masks.

    In the order gaussian_sxy, gaussian_weight; bilateral_sxy, bilateral_srgb, bilateral_weight,
    with 10 rounds each (Specification 5.1):

    - AFA and RML, final masks: 3, 3; 64, 5, 4.
    - PSA, SEAM, AEFT, OC-CSE and RRM, labels from evidence; 1Stage, final: 3, 3; 80, 13, 10.
    - IRN, AdvCAM, RIB and ReCAM, labels: 3, 3; 50, 5, 10 with `unary: label`.
    - ToCo, final: 1, 1; 121, 5, 4.
    - RRM, final: 3, 3; 83, 5, 4.
    """

    name: str = "dense_crf"
    """Refiner: a file of the folder `refiners`."""
    iterations: int = Field(default=10, ge=0)
    """Rounds of mean field."""
    gaussian_sxy: PositiveFloat = 3.0
    """Width of the kernel of places, in pixels of the image that is refined."""
    gaussian_weight: float = Field(default=3.0, ge=0)
    """Weight of the kernel of places; larger removes more specks."""
    bilateral_sxy: PositiveFloat = 64.0
    """Width of the bilateral kernel in pixels (AFA 64, PSA 80, IRN 50, ToCo 121, RRM 83)."""
    bilateral_srgb: PositiveFloat = 5.0
    """Width of the bilateral kernel in gray levels (PSA and 1Stage 13, others 5)."""
    bilateral_weight: float = Field(default=4.0, ge=0)
    """Weight of the bilateral kernel (AFA, ToCo and RRM 4; CRFs for labels 10)."""
    unary: Literal["prob", "label"] = "prob"
    """Start from the probabilities, or from the likeliest class with a fixed confidence (IRN)."""
    confidence: float = Field(default=0.7, gt=0, lt=1)
    """Probability of the likeliest class with `unary: label`; the others share the rest."""
    memory_mib: int = Field(default=MEMORY_MIB, ge=1)
    """Refuse images for which the lattices need more memory."""


class DenseCRF(Refiner):
    """Dense CRF; the lattices of an image serve all its stacks.

    Returns float32 whatever comes in; no gradient. Images of a batch run on torch's threads.
    """

    Config = DenseCRFConfig
    at_full_size: ClassVar[bool] = True
    config: DenseCRFConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` by the (N, 3, H, W) `image`; float32, sums to 1 over C.

        Raises:
            DataError: If an input holds NaN or infinite values, or the image is too large.
        """
        require_finite("image", image, ("image", "channel", "row", "column"))
        require_finite("probability", probs, ("image", "stack", "class", "row", "column"))
        with torch.autocast(probs.device.type, enabled=False):
            if probs.device.type == "cpu":
                return _refine_cpu(image.detach(), probs.detach().float(), self.config)
            return torch_mean_field(image.detach(), probs.detach().float(), self.config)


def require_finite(what: str, values: Tensor, axes: tuple[str, ...]) -> None:
    """Refuse NaN and infinite values, saying where the first one is.

    Raises:
        DataError: Naming the place along `axes`, counted from 0.
    """
    if not values.is_floating_point() or bool(values.isfinite().all()):
        return
    bad = ~values.isfinite()
    first = bad.nonzero()[0].tolist()
    place = ", ".join(f"{axis} {number}" for axis, number in zip(axes, first, strict=True))
    raise DataError(
        f"dense_crf: {what} is {values[tuple(first)].item()} at {place} ({int(bad.sum())} such "
        "values); the weights it came from may have diverged"
    )


def present_classes(probs: Tensor) -> Tensor:
    """Tell which classes of (N, S, C, H, W) `probs` are not 0 all over the image.

    Returns:
        (N, S, C) bool; all classes of a stack of nothing but zeros.
    """
    present = probs.amax(dim=(3, 4)) > 0
    return present | ~present.any(dim=2, keepdim=True)


def log_unary(probs: Tensor, num_present: Tensor, config: DenseCRFConfig) -> Tensor:
    """Take the logarithm of the unary probabilities.

    Args:
        probs: (..., C, H, W) float32.
        num_present: (...,) classes that share what the likeliest one leaves (`unary: label`).
        config: Kind of unary and confidence.

    Returns:
        The shape of `probs`.

    Source:
        Specification 5.1.
    """
    if config.unary == "prob":
        return probs.clamp(LEAST_PROBABILITY, 1).log_()
    rest = (1 - config.confidence) / (num_present - 1).clamp_min(1)
    winner = probs.argmax(dim=-3, keepdim=True)
    log_probs = rest.log()[..., None, None, None].expand(probs.shape)
    return log_probs.scatter(-3, winner, math.log(config.confidence))


def torch_mean_field(image: Tensor, probs: Tensor, config: DenseCRFConfig) -> Tensor:
    """Refine (N, S, C, H, W) float32 `probs` in plain torch, all images in one lattice."""
    num, stacks, channels, height, width = probs.shape
    pixels = num * height * width
    most = most_corners(
        pixels,
        simplex=_SIMPLEX,
        floats=_FEATURES + 5 * stacks * channels,
        channels=stacks * channels,
        memory_mib=config.memory_mib * num,
        on_cpu=False,
    )
    place = position_features(height, width, config.gaussian_sxy, probs.device)
    color = [
        bilateral_features(single, config.bilateral_sxy, config.bilateral_srgb) for single in image
    ]
    lattices = (
        build_torch_lattice(place.expand(num, -1, -1), most),
        build_torch_lattice(torch.stack(color), most),
    )
    for lattice in lattices:
        lattice.normalize()
    present = present_classes(probs)
    log_probs = log_unary(probs, present.sum(dim=2), config)
    log_probs.masked_fill_(~present[..., None, None], -torch.inf)
    log_probs = log_probs.permute(0, 3, 4, 1, 2).reshape(pixels, stacks, channels)
    here = log_probs.softmax(dim=2)
    for _ in range(config.iterations):
        logits = log_probs.clone()
        for lattice, weight in zip(
            lattices, (config.gaussian_weight, config.bilateral_weight), strict=True
        ):
            logits += weight * lattice.filter(here.flatten(1)).view_as(here)
        here = logits.softmax(dim=2)
    return here.view(num, height, width, stacks, channels).permute(0, 3, 4, 1, 2).contiguous()


def _refine_cpu(image: Tensor, probs: Tensor, config: DenseCRFConfig) -> Tensor:
    """Refine (N, S, C, H, W) float32 `probs` image by image, on the present classes."""
    stacks, channels, height, width = probs.shape[1:]
    present = present_classes(probs)
    lanes = _lanes(int(present.sum(dim=2).max()))
    most = most_corners(
        height * width,
        simplex=_SIMPLEX,
        floats=_FEATURES + 4 * lanes + stacks * channels,
        channels=lanes,
        memory_mib=config.memory_mib,
        on_cpu=True,
    )
    weights = (config.gaussian_weight, config.bilateral_weight)
    result = torch.zeros_like(probs)

    def refine_image(n: int) -> None:
        lattices = _cpu_lattices(image[n], config, most)
        for stack, shown in enumerate(present[n]):
            unary = log_unary(probs[n, stack, shown], shown.sum(), config).flatten(1)
            rows = torch.full((_lanes(len(unary)), height * width), NEVER)
            rows[: len(unary)] = unary
            rows = rows.T.contiguous()
            moved = cpu_mean_field(rows.numpy(), *lattices, weights, config.iterations)
            moved = np.ascontiguousarray(moved.T[: len(unary)])
            result[n, stack, shown] = torch.from_numpy(moved).view(-1, height, width)

    in_threads(refine_image, len(probs))
    return result


def _lanes(classes: int) -> int:
    """Round up so that rows fill vector registers: 4 float32, or multiples of 8."""
    return 4 if classes <= 4 else -(-classes // 8) * 8


def _cpu_lattices(
    image: Tensor, config: DenseCRFConfig, most: int
) -> tuple[CpuLattice, CpuLattice]:
    """Normalized lattices of places, and of places and colors, of a (3, H, W) image."""
    height, width = image.shape[-2:]
    place = position_features(height, width, config.gaussian_sxy, image.device)
    color = bilateral_features(image, config.bilateral_sxy, config.bilateral_srgb)
    gaussian = build_cpu_lattice(place.numpy(), most)
    bilateral = build_cpu_lattice(color.numpy(), most)
    gaussian.normalize()
    bilateral.normalize()
    return gaussian, bilateral
