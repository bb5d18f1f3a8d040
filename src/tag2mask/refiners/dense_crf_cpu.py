"""The mean-field rounds of the dense CRF for the CPU, compiled by numba.

A round reads both lattices back, takes the softmax and adds the result to both lattices, a few
pixels at a time: probabilities are never written out between rounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tag2mask.functional.compilation import compiled
from tag2mask.functional.lattice_cpu import CpuLattice

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.uint32]

NEVER = -200.0
"""Logarithm of the probability of the channels that only fill up the lanes."""
_LEAST_EXPONENT = -60.0
"""Probabilities below exp of this, 1e-26, become 0: smaller products would be slow to compute."""
_BLOCK = 64
"""Pixels done together: enough for one long loop of exponentials, few enough for the cache."""


class _Side(NamedTuple):
    """One lattice during the rounds."""

    corner: Indices
    """(P, D) corners of each pixel."""
    weight: Floats
    """(P, D) their shares, normalized."""
    strength: Any
    """Float32: what the message of this kernel is multiplied by."""
    rows: Floats
    """(V + 1, K) what is read: the last round's probabilities, blurred."""
    spare: Floats
    """(V + 1, K) what is added to."""


def cpu_mean_field(
    log_probs: Floats,
    gaussian: CpuLattice,
    bilateral: CpuLattice,
    weights: tuple[float, float],
    iterations: int,
) -> Floats:
    """Run mean field: Q = softmax(log p + sum of w K Q), again and again.

    Args:
        log_probs: (P, K) logarithms of the unary probabilities; K is best a multiple of 8.
        gaussian: Normalized lattice of two features.
        bilateral: Normalized lattice of five features.
        weights: Of the two kernels.
        iterations: Rounds.

    Returns:
        (P, K) probabilities, sum to 1 over K; the memory of `log_probs`.

    Source:
        Krähenbühl, Koltun: Efficient inference in fully connected CRFs, 2011, Algorithm 1 with the
        Potts model; Specification 5.1.
    """
    lattices = (gaussian, bilateral)
    near, far = (
        _Side(
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
            _blurred(side, lattice, weight)
            for side, lattice, weight in zip((near, far), lattices, weights, strict=True)
        )
        if done + 1 < iterations:
            near.spare[:], far.spare[:] = 0, 0
    _finish(log_probs, near, far)
    return log_probs


def _blurred(side: _Side, lattice: CpuLattice, weight: float) -> _Side:
    """Blur what was added; it is read next, and the array that was read is added to."""
    rows, spare = lattice.blur(side.spare, side.rows)
    return side._replace(rows=rows, spare=spare, strength=np.float32(weight * lattice.gain))


@compiled(nogil=True)
def _exp(value: Any) -> Any:
    """Compute exp of a float32 at most 0, to 2e-7 of its size, without a call into a library.

    Source:
        Cody and Waite's reduction to [-ln 2 / 2, ln 2 / 2], ln 2 in two parts; Taylor's series
        to the power 7 there.
    """
    power = np.floor(value * np.float32(1.4426950408889634) + np.float32(0.5))
    rest = value - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    series = np.float32(1 / 5040)
    for coefficient in (1 / 720, 1 / 120, 1 / 24, 1 / 6, 1 / 2, 1.0, 1.0):
        series = series * rest + np.float32(coefficient)
    bits = np.int32((np.int32(max(power, np.float32(-126))) + np.int32(127)) << np.int32(23))
    return series * bits.view(np.float32) if value > np.float32(_LEAST_EXPONENT) else np.float32(0)


@compiled(nogil=True)
def _messages(first: int, near: _Side, far: _Side, log_probs: Floats, out: Floats) -> None:
    """Fill `out` (B, K) with the logits of the probabilities of pixels `first` and on.

    Written out, as one loop over channels is several times faster than one per corner.
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
    """Replace (B, K) logits by their softmax over K; the exponentials are one loop."""
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
def _add(first: int, side: _Side, probs: Floats) -> None:
    """Add (B, K) probabilities of pixels `first` and on to their corners."""
    for row in range(len(probs)):
        for n in range(side.corner.shape[1]):
            to, share = side.corner[first + row, n], side.weight[first + row, n]
            for k in range(probs.shape[1]):
                side.spare[to, k] += share * probs[row, k]


@compiled(nogil=True)
def _exchange(log_probs: Floats, near: _Side, far: _Side) -> None:
    """Run one round but for the blur: from both sides' `rows` to both sides' `spare`."""
    block = np.empty((_BLOCK, log_probs.shape[1]), dtype=np.float32)
    for first in range(0, len(log_probs), _BLOCK):
        probs = block[: len(log_probs) - first]
        _messages(first, near, far, log_probs, probs)
        _softmax(probs)
        _add(first, near, probs)
        _add(first, far, probs)


@compiled(nogil=True)
def _finish(log_probs: Floats, near: _Side, far: _Side) -> None:
    """Replace `log_probs` by the probabilities after the last blur."""
    for first in range(0, len(log_probs), _BLOCK):
        probs = log_probs[first : first + _BLOCK]
        _messages(first, near, far, log_probs, probs)
        _softmax(probs)
