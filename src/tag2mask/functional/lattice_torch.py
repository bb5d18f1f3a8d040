"""The permutohedral lattice in plain torch for accelerators, with one lattice per batch.

The steps are those of `lattice_cpu`, with sorting instead of a hash table. The corners of all
images are found together; their keys contain the image's number.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tag2mask.errors import DataError
from tag2mask.functional.lattice_cpu import LEAST_NORM, axis_scale, kernel_gain, key_layout


@dataclass(frozen=True, slots=True)
class TorchLattice:
    """The lattice of N images with P points each.

    D is the number of features plus 1, V the number of corners.
    """

    index: Tensor
    """(N * P, D) int64 corners of each point's simplex, in 0..V-1."""
    weight: Tensor
    """(N * P, D) weight of each corner; sums to 1 over D until `normalize` scales it by K1^-1/2."""
    near: Tensor
    """(D, 2, V) int64 neighbors of each corner along each axis; V if there is none."""
    gain: float
    """Factor that makes the kernel 1 at a point that is a corner."""

    def filter(self, values: Tensor) -> Tensor:
        """Compute K v of (N * P, C) float32 values; the sum includes the point itself."""
        corners = self.near.shape[2]
        rows = values.new_zeros((corners + 1, values.shape[1]))
        for corner, fraction in zip(self.index.T, self.weight.T, strict=True):
            rows.index_add_(0, corner, values * fraction[:, None])
        for up, down in self.near:
            rows[:-1] += 0.5 * (rows[up] + rows[down])
        out = torch.zeros_like(values)
        for corner, fraction in zip(self.index.T, self.weight.T, strict=True):
            out += rows[corner] * fraction[:, None]
        return out.mul_(self.gain)

    def normalize(self) -> None:
        """Make the filter D^-1/2 K D^-1/2 with D = K1, by scaling the weights in place."""
        total = self.filter(self.weight.new_ones(len(self.weight), 1))
        self.weight.mul_((total + LEAST_NORM).rsqrt())


def build_torch_lattice(features: Tensor, max_corners: int) -> TorchLattice:
    """Build the lattice of a Gaussian kernel of width 1 on the device of the features.

    Args:
        features: (N, P, d) float32, finite, already divided by the kernel's widths.
        max_corners: Largest number of corners that fit in memory.

    Raises:
        DataError: See `build_cpu_lattice`.
    """
    images, points, num_features = features.shape
    size = num_features + 1
    lifted = _lift(features.flatten(0, 1))
    corner, order, weight = _find_simplex(lifted)
    lowest, highest = lifted.amin(dim=0).tolist(), lifted.amax(dim=0).tolist()
    lowest[-1], highest[-1] = 0.0, float(images)  # coordinate for the image's number
    strides, origin = key_layout([*lowest, 0.0], [*highest, 0.0])
    stride = torch.from_numpy(strides).to(features.device)
    image_key = stride[size - 1] * torch.arange(images, device=features.device)
    stride = stride[:size] * (torch.arange(size, device=features.device) < num_features)
    step = stride.sum() - size * stride  # of the key along each axis
    key = (corner * stride).sum(dim=1) + image_key.repeat_interleave(points) + origin
    steps_to_corners = step[order].flip(1)[:, :-1].cumsum(dim=1)
    keys, index = torch.unique(
        torch.cat([key[:, None], key[:, None] + steps_to_corners], dim=1), return_inverse=True
    )
    if len(keys) > max_corners:
        raise DataError(
            f"the lattice of {images * points} pixels needs {len(keys)} corners, more than the "
            f"{max_corners} its memory limit allows; shrink the image or raise the limit"
        )
    near = torch.stack([torch.stack([_find(keys, keys + s), _find(keys, keys - s)]) for s in step])
    return TorchLattice(index, weight, near, kernel_gain(num_features))


def _lift(features: Tensor) -> Tensor:
    """Lift (P, d) features to (P, d + 1) coordinates that sum to 0."""
    num_features = features.shape[1]
    value = features * torch.from_numpy(axis_scale(num_features)).to(features)
    lifted = []
    total = torch.zeros_like(value[:, 0])
    for axis in range(num_features, 0, -1):
        lifted.append(total - axis * value[:, axis - 1])
        total = total + value[:, axis - 1]
    return torch.stack([total, *reversed(lifted)], dim=1)


def _find_simplex(lifted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find the simplex around each of (P, D) lifted points.

    Returns:
        (P, D) int64 coordinates of the corner whose coordinates are multiples of D; (P, D) int64
        axes by descending distance from it; (P, D) weights of the D corners.
    """
    size = lifted.shape[1]
    nearest = torch.round(lifted * (1 / size))
    distance = lifted - size * nearest
    surplus = nearest.sum(dim=1, keepdim=True).long()
    rank = distance.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + surplus
    turn = (rank < 0).long() - (rank >= size).long()
    corner = (nearest.long() + turn) * size
    distance = distance - turn * size
    order = (rank + turn * size).argsort(dim=1)
    descending = distance.gather(1, order)
    inner = (descending[:, :-1] - descending[:, 1:]).flip(1) / size
    outer = 1 - (descending[:, :1] - descending[:, -1:]) / size
    return corner, order, torch.cat([outer, inner], dim=1)


def _find(keys: Tensor, queries: Tensor) -> Tensor:
    """Find the index of each query among the sorted (V,) keys, V if it is missing."""
    index = torch.searchsorted(keys, queries).clamp_max(len(keys) - 1)
    return torch.where(keys[index] == queries, index, len(keys))
