"""The mean-field iterations of the dense CRF for the CPU, compiled by numba.

An iteration reads both lattices, applies the softmax and adds the result to both lattices, a few
pixels at a time. The probabilities of all pixels are never stored between iterations.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag2mask.functional.compilation import compiled
from tag2mask.functional.lattice_cpu import CpuLattice

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]

PADDING_LOG_PROB = -200.0
"""Log-probability of the channels that pad rows to full vector registers."""
_MIN_EXPONENT = -60.0
"""Probabilities below exp(-60), 1e-26, become 0, because denormal products are slow."""
_BLOCK = 64
"""Pixels per block: enough for one long loop of exponentials, few enough for the cache."""


class _Kernel(NamedTuple):
    """One kernel's lattice during the iterations."""

    corner: Indices
    """(P, D) corners of each pixel."""
    weight: Floats
    """(P, D) normalized weights of the corners."""
    strength: Any
    """Float32 factor of this kernel's messages."""
    rows: Floats
    """(V + 1, K) blurred probabilities of the last iteration, which are read."""
    sums: Floats
    """(V + 1, K) sums for the next iteration, which are written."""


def cpu_mean_field(
    log_probs: Floats,
    gaussian: CpuLattice,
    bilateral: CpuLattice,
    weights: tuple[float, float],
    iterations: int,
) -> Floats:
    """Run mean field: repeat Q = softmax(log p + sum of w K Q).

    Args:
        log_probs: (P, K) unary log-probabilities, overwritten. Fastest if K is a multiple of 8.
        gaussian: Normalized lattice with two features.
        bilateral: Normalized lattice with five features.
        weights: Weights of the two kernels.
        iterations: Number of iterations.

    Returns:
        (P, K) probabilities that sum to 1 over K, in the memory of `log_probs`.

    Source:
        Krähenbühl, Koltun: Efficient inference in fully connected CRFs, 2011, Algorithm 1 with the
        Potts model; Specification 5.1.
    """
    lattices = (gaussian, bilateral)
    near, far = (
        _Kernel(
            lattice.index,
            lattice.weight,
            np.float32(0),
            lattice.rows(log_probs.shape[1]),
            lattice.rows(log_probs.shape[1]),
        )
        for lattice in lattices
    )
    for done in range(iterations):
        _exchange(log_probs, near, far)
        near, far = (
            _blurred(kernel, lattice, weight)
            for kernel, lattice, weight in zip((near, far), lattices, weights, strict=True)
        )
        if done + 1 < iterations:
            near.sums[:], far.sums[:] = 0, 0
    _finish(log_probs, near, far)
    return log_probs


def _blurred(kernel: _Kernel, lattice: CpuLattice, weight: float) -> _Kernel:
    """Blur the sums and exchange both arrays, so that the next iteration reads the result."""
    rows, sums = lattice.blur(kernel.sums, kernel.rows)
    return kernel._replace(rows=rows, sums=sums, strength=np.float32(weight * lattice.gain))


@compiled(nogil=True)
def _exp(value: Any) -> Any:
    """Compute exp of a float32 at most 0, with a relative error of 2e-7, without a library call.

    Source:
        Cody and Waite's range reduction to [-ln 2 / 2, ln 2 / 2] with ln 2 in two parts, then the
        Taylor series up to power 7.
    """
    power = np.floor(value * np.float32(1.4426950408889634) + np.float32(0.5))
    rest = value - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * rest + np.float32(coefficient)
    bits = np.int32((np.int32(max(power, np.float32(-126))) + np.int32(127)) << np.int32(23))
    return series * bits.view(np.float32) if value > np.float32(_MIN_EXPONENT) else np.float32(0)


@compiled(nogil=True)
def _messages(first: int, near: _Kernel, far: _Kernel, log_probs: Floats, out: Floats) -> None:
    """Fill `out` (B, K) with the logits of the B pixels from `first` on.

    The sum is unrolled: one loop over channels is several times faster than one per corner.
    """
    g, b, v, w = near.corner, far.corner, near.weight, far.weight
    for row in range(len(out)):
        p = first + row
        g0, g1, g2 = g[p, 0], g[p, 1], g[p, 2]
        b0, b1, b2, b3, b4, b5 = b[p, 0], b[p, 1], b[p, 2], b[p, 3], b[p, 4], b[p, 5]
        v0, v1, v2 = near.strength * v[p, 0], near.strength * v[p, 1], near.strength * v[p, 2]
        w0, w1, w2 = far.strength * w[p, 0], far.strength * w[p, 1], far.strength * w[p, 2]
        w3, w4, w5 = far.strength * w[p, 3], far.strength * w[p, 4], far.strength * w[p, 5]
        for k in range(out.shape[1]):
            out[row, k] = (
                log_probs[p, k]
                + v0 * near.rows[g0, k]
                + v1 * near.rows[g1, k]
                + v2 * near.rows[g2, k]
                + w0 * far.rows[b0, k]
                + w1 * far.rows[b1, k]
                + w2 * far.rows[b2, k]
                + w3 * far.rows[b3, k]
                + w4 * far.rows[b4, k]
                + w5 * far.rows[b5, k]
            )


@compiled(nogil=True)
def _softmax(logits: Floats) -> None:
    """Replace (B, K) logits by their softmax over K, with all exponentials in one loop."""
    for row in range(len(logits)):
        peak = logits[row, 0]
        for k in range(logits.shape[1]):
            peak = max(peak, logits[row, k])
        for k in range(logits.shape[1]):
            logits[row, k] -= peak
    flat = logits.reshape(-1)
    for entry in range(len(flat)):
        flat[entry] = _exp(flat[entry])
    for row in range(len(logits)):
        total = np.float32(0)
        for k in range(logits.shape[1]):
            total += logits[row, k]
        total = np.float32(1) / total
        for k in range(logits.shape[1]):
            logits[row, k] *= total


@compiled(nogil=True)
def _add(first: int, kernel: _Kernel, probs: Floats) -> None:
    """Add the (B, K) probabilities of the pixels from `first` on to their corners."""
    for row in range(len(probs)):
        for n in range(kernel.corner.shape[1]):
            corner, weight = kernel.corner[first + row, n], kernel.weight[first + row, n]
            for k in range(probs.shape[1]):
                kernel.sums[corner, k] += weight * probs[row, k]


@compiled(nogil=True)
def _exchange(log_probs: Floats, near: _Kernel, far: _Kernel) -> None:
    """Run one iteration except for the blur, from the `rows` to the `sums` of both kernels."""
    block = np.empty((_BLOCK, log_probs.shape[1]), dtype=np.float32)
    for first in range(0, len(log_probs), _BLOCK):
        probs = block[: len(log_probs) - first]
        _messages(first, near, far, log_probs, probs)
        _softmax(probs)
        _add(first, near, probs)
        _add(first, far, probs)


@compiled(nogil=True)
def _finish(log_probs: Floats, near: _Kernel, far: _Kernel) -> None:
    """Replace `log_probs` by the probabilities after the last blur."""
    for first in range(0, len(log_probs), _BLOCK):
        probs = log_probs[first : first + _BLOCK]
        _messages(first, near, far, log_probs, probs)
        _softmax(probs)
