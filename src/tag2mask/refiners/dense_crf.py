"""Dense CRF: all pairs of pixels prefer the same class, more so if they are near and similar.

Mean-field inference in the Potts model with a Gaussian position kernel and a bilateral kernel of
position and color, on the permutohedral lattice: compiled loops on the CPU, plain torch elsewhere.
Channels that are 0 in the complete image (absent classes) are skipped and stay 0.

Source:
    Krähenbühl, Koltun: Efficient inference in fully connected CRFs with Gaussian edge potentials,
    2011; settings of the papers: Specification 5.1. Results match the package pydensecrf2.
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
    corner_limit,
    in_threads,
    position_features,
)
from tag2mask.functional.lattice_cpu import CpuLattice, build_cpu_lattice
from tag2mask.functional.lattice_torch import build_torch_lattice
from tag2mask.refiners.base import Refiner
from tag2mask.refiners.dense_crf_cpu import PADDING_LOG_PROB, cpu_mean_field

MIN_PROBABILITY = 1e-5
"""Lower bound of unary probabilities before the logarithm."""
_FEATURES = 2 + 5
"""Features per pixel of the position and the bilateral kernel."""
_SIMPLEX = 3 + 6
"""Simplex corners per pixel of both kernels, one more than features."""


class DenseCRFConfig(RefinerConfig):
    """Settings of the dense CRF; the defaults are those of AFA for final masks.

    Settings of the papers, with 10 iterations each (Specification 5.1), in the order gaussian_sxy,
    gaussian_weight; bilateral_sxy, bilateral_srgb, bilateral_weight:

    - AFA and RML, final masks: 3, 3; 64, 5, 4.
    - PSA, SEAM, AEFT, OC-CSE and RRM, pseudo-labels; 1Stage, final masks: 3, 3; 80, 13, 10.
    - IRN, AdvCAM, RIB and ReCAM, pseudo-labels: 3, 3; 50, 5, 10 with `unary: label`.
    - ToCo, final masks: 1, 1; 121, 5, 4.
    - RRM, final masks: 3, 3; 83, 5, 4.
    """

    name: str = "dense_crf"
    """Refiner: a file of the folder `refiners`."""
    iterations: int = Field(default=10, ge=0, le=2**16)
    """Mean-field iterations."""
    gaussian_sxy: PositiveFloat = 3.0
    """Width of the position kernel in pixels of the refined image."""
    gaussian_weight: float = Field(default=3.0, ge=0)
    """Weight of the position kernel; larger values remove more small regions."""
    bilateral_sxy: PositiveFloat = 64.0
    """Width of the bilateral kernel in pixels (AFA 64, PSA 80, IRN 50, ToCo 121, RRM 83)."""
    bilateral_srgb: PositiveFloat = 5.0
    """Width of the bilateral kernel in gray levels (PSA and 1Stage 13, others 5)."""
    bilateral_weight: float = Field(default=4.0, ge=0)
    """Weight of the bilateral kernel (AFA, ToCo and RRM 4; 10 for pseudo-labels)."""
    unary: Literal["prob", "label"] = "prob"
    """Unary term: the probabilities, or the most likely class with a fixed confidence (IRN)."""
    confidence: float = Field(default=0.7, gt=0, lt=1)
    """Probability of the most likely class with `unary: label`; the others share the rest."""
    memory_mib: int = Field(default=MEMORY_MIB, ge=1, le=2**24)
    """Memory limit for the lattices of an image in MiB; larger images are rejected."""


class DenseCRF(Refiner):
    """Refine with a dense CRF. The lattices are built once per image.

    Returns float32; no gradient. The images of a batch run in parallel on torch's threads.

    Example:
        >>> import torch
        >>> image = torch.full((1, 3, 8, 12), 40, dtype=torch.uint8)
        >>> image[..., 6:] = 200  # dark and bright half
        >>> right = torch.full((1, 1, 8, 12), 0.3)
        >>> right[..., 8:] = 0.8  # two pixels off the edge
        >>> refine = DenseCRF(DenseCRFConfig(bilateral_sxy=20, bilateral_weight=10))
        >>> mask = refine(image, torch.cat([1 - right, right], dim=1)).argmax(dim=1)
        >>> mask[0, 0].tolist()
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]
    """

    Config = DenseCRFConfig
    at_full_size: ClassVar[bool] = True
    config: DenseCRFConfig

    @torch.no_grad()
    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        """Refine (N, S, C, H, W) `probs` with the (N, 3, H, W) `image`; see `Refiner.forward`.

        Raises:
            DataError: If an input has NaN or infinite values, or the image needs too much memory.
        """
        require_finite("image", image, ("image", "channel", "row", "column"))
        require_finite("probability", probs, ("image", "set", "class", "row", "column"))
        with torch.autocast(probs.device.type, enabled=False):
            if probs.device.type == "cpu":
                return _refine_cpu(image.detach(), probs.detach().float(), self.config)
            return torch_mean_field(image.detach(), probs.detach().float(), self.config)


def require_finite(what: str, values: Tensor, axes: tuple[str, ...]) -> None:
    """Reject NaN and infinite values and report the position of the first one.

    Raises:
        DataError: With the index along each of the `axes`, counted from 0.
    """
    if not values.is_floating_point() or bool(values.isfinite().all()):
        return
    bad = ~values.isfinite()
    first = bad.nonzero()[0].tolist()
    position = ", ".join(f"{axis} {index}" for axis, index in zip(axes, first, strict=True))
    raise DataError(
        f"dense_crf: {what} is {values[tuple(first)].item()} at {position} ({int(bad.sum())} such "
        "values); the training of the network may have diverged"
    )


def present_classes(probs: Tensor) -> Tensor:
    """Mark the classes of (N, S, C, H, W) `probs` that are not 0 in the complete image.

    Returns:
        (N, S, C) bool; all True for a set that contains only zeros.
    """
    present = probs.amax(dim=(3, 4)) > 0
    return present | ~present.any(dim=2, keepdim=True)


def log_unary(probs: Tensor, num_present: Tensor, config: DenseCRFConfig) -> Tensor:
    """Compute the unary log-probabilities.

    Args:
        probs: (..., C, H, W) float32.
        num_present: (...,) number of present classes, which share the rest with `unary: label`.
        config: Settings `unary` and `confidence`.

    Returns:
        The shape of `probs`.

    Source:
        Specification 5.1.
    """
    if config.unary == "prob":
        return probs.clamp(MIN_PROBABILITY, 1).log_()
    rest = (1 - config.confidence) / (num_present - 1).clamp_min(1)
    winner = probs.argmax(dim=-3, keepdim=True)
    log_probs = rest.log()[..., None, None, None].expand(probs.shape)
    return log_probs.scatter(-3, winner, math.log(config.confidence))


def torch_mean_field(image: Tensor, probs: Tensor, config: DenseCRFConfig) -> Tensor:
    """Refine (N, S, C, H, W) float32 `probs` in plain torch, with one lattice for all images."""
    num, sets, channels, height, width = probs.shape
    pixels = num * height * width
    max_corners = corner_limit(
        pixels,
        simplex=_SIMPLEX,
        floats=_FEATURES + 5 * sets * channels,
        channels=sets * channels,
        memory_mib=config.memory_mib * num,
        on_cpu=False,
    )
    position = position_features(height, width, config.gaussian_sxy, probs.device)
    color = [
        bilateral_features(single, config.bilateral_sxy, config.bilateral_srgb) for single in image
    ]
    lattices = (
        build_torch_lattice(position.expand(num, -1, -1), max_corners),
        build_torch_lattice(torch.stack(color), max_corners),
    )
    for lattice in lattices:
        lattice.normalize()
    present = present_classes(probs)
    log_probs = log_unary(probs, present.sum(dim=2), config)
    log_probs.masked_fill_(~present[..., None, None], -torch.inf)
    log_probs = log_probs.permute(0, 3, 4, 1, 2).reshape(pixels, sets, channels)
    refined = log_probs.softmax(dim=2)
    for _ in range(config.iterations):
        logits = log_probs.clone()
        for lattice, weight in zip(
            lattices, (config.gaussian_weight, config.bilateral_weight), strict=True
        ):
            logits += weight * lattice.filter(refined.flatten(1)).view_as(refined)
        refined = logits.softmax(dim=2)
    return refined.view(num, height, width, sets, channels).permute(0, 3, 4, 1, 2).contiguous()


def _refine_cpu(image: Tensor, probs: Tensor, config: DenseCRFConfig) -> Tensor:
    """Refine the present classes of (N, S, C, H, W) float32 `probs`, image by image."""
    sets, channels, height, width = probs.shape[1:]
    present = present_classes(probs)
    lanes = _lanes(int(present.sum(dim=2).max()))
    max_corners = corner_limit(
        height * width,
        simplex=_SIMPLEX,
        floats=_FEATURES + 4 * lanes + sets * channels,
        channels=lanes,
        memory_mib=config.memory_mib,
        on_cpu=True,
    )
    weights = (config.gaussian_weight, config.bilateral_weight)
    result = torch.zeros_like(probs)

    def refine_image(n: int) -> None:
        lattices = _cpu_lattices(image[n], config, max_corners)
        for s, classes in enumerate(present[n]):
            unary = log_unary(probs[n, s, classes], classes.sum(), config).flatten(1)
            rows = torch.full((_lanes(len(unary)), height * width), PADDING_LOG_PROB)
            rows[: len(unary)] = unary
            rows = rows.T.contiguous()
            refined = cpu_mean_field(rows.numpy(), *lattices, weights, config.iterations)
            refined = np.ascontiguousarray(refined.T[: len(unary)])
            result[n, s, classes] = torch.from_numpy(refined).view(-1, height, width)

    in_threads(refine_image, len(probs))
    return result


def _lanes(classes: int) -> int:
    """Round up to full vector registers: 4 float32, or a multiple of 8."""
    return 4 if classes <= 4 else -(-classes // 8) * 8


def _cpu_lattices(
    image: Tensor, config: DenseCRFConfig, max_corners: int
) -> tuple[CpuLattice, CpuLattice]:
    """Build the normalized lattices of both kernels for a (3, H, W) image."""
    height, width = image.shape[-2:]
    position = position_features(height, width, config.gaussian_sxy, image.device)
    color = bilateral_features(image, config.bilateral_sxy, config.bilateral_srgb)
    gaussian = build_cpu_lattice(position.numpy(), max_corners)
    bilateral = build_cpu_lattice(color.numpy(), max_corners)
    gaussian.normalize()
    bilateral.normalize()
    return gaussian, bilateral
