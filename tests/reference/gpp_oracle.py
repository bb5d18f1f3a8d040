"""Gated pyramid pooling by explicit loops in float64, written from AEFT's Eq. 4 and 5; slow."""

import math

import numpy as np


def cells(length, side):
    """First and last (excluded) place of each cell of an adaptive grid."""
    return [(i * length // side, math.ceil((i + 1) * length / side)) for i in range(side)]


def pooled(plane, side):
    rows, columns = cells(plane.shape[0], side), cells(plane.shape[1], side)
    return np.array([[plane[a:b, c:d].mean() for c, d in columns] for a, b in rows])


def enlarged(plane, height, width):
    """Bilinear, pixel centers aligned, borders repeated."""
    rows, columns = plane.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            low, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            dy, dx = v - top, u - left
            upper = (1 - dx) * plane[top, left] + dx * plane[top, right]
            lower = (1 - dx) * plane[low, left] + dx * plane[low, right]
            out[y, x] = (1 - dy) * upper + dy * lower
    return out


def convolved(planes, kernel):
    """(D, h, w) planes and a (D, 3, 3) kernel, zeros outside."""
    _, height, width = planes.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        at = planes[:, y + dy, x + dx]
                        out[y, x] += (at * kernel[:, dy + 1, dx + 1]).sum()
    return out


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def gate(coarse, fine, positive_kernel, negative_kernel):
    """(F, h, w) levels; kernels (2, 2 F, 3, 3). No negative kernel: negative parts weigh 1."""
    out = np.zeros_like(coarse)
    for sign, kernel in ((1, positive_kernel), (-1, negative_kernel)):
        parts = np.maximum(sign * np.concatenate([coarse, fine]), 0)
        first, second = parts[: len(coarse)], parts[len(coarse) :]
        if kernel is None:
            out += sign * (first + second) / 2
            continue
        for_coarse, for_fine = (sigmoid(convolved(parts, rows)) for rows in kernel)
        out += sign * (for_coarse * first + for_fine * second) / 2
    return out


def attention(cam, kernels):
    """(F, h, w) map and one (positive, negative) pair of kernels per gate."""
    height, width = cam.shape[1:]
    levels = [
        np.array([enlarged(pooled(plane, side), height, width) for plane in cam])
        for side in (2, 4, 8, 16)
    ]
    blend = levels[0]
    for fine, (positive, negative) in zip(levels[1:], kernels, strict=True):
        blend = gate(blend, fine, positive, negative)
    return blend


def score(cam, blend, parts="both"):
    present = (np.maximum(cam, 0) * np.maximum(blend, 0)).mean(axis=(1, 2))
    absent = (np.maximum(-cam, 0) * np.maximum(-blend, 0)).mean(axis=(1, 2))
    return {"both": present - absent, "positive": present, "negative": -absent}[parts]
