"""Gated pyramid pooling by explicit loops in float64, from AEFT's Eq. 4 and 5; slow."""

import math

import numpy as np


def regions(length, side):
    """Return the start and end of each region of adaptive average pooling."""
    return [(i * length // side, math.ceil((i + 1) * length / side)) for i in range(side)]


def pooled(plane, side):
    rows, columns = regions(plane.shape[0], side), regions(plane.shape[1], side)
    return np.array([[plane[a:b, c:d].mean() for c, d in columns] for a, b in rows])


def enlarged(plane, height, width):
    """Resize bilinearly without aligning corners."""
    rows, columns = plane.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * rows / height - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / width - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            dy, dx = v - top, u - left
            upper = (1 - dx) * plane[top, left] + dx * plane[top, right]
            lower = (1 - dx) * plane[bottom, left] + dx * plane[bottom, right]
            out[y, x] = (1 - dy) * upper + dy * lower
    return out


def convolved(planes, kernel):
    """Convolve (D, h, w) planes with a (D, 3, 3) kernel and zero padding."""
    _, height, width = planes.shape
    out = np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    if 0 <= y + dy < height and 0 <= x + dx < width:
                        neighbor = planes[:, y + dy, x + dx]
                        out[y, x] += (neighbor * kernel[:, dy + 1, dx + 1]).sum()
    return out


def sigmoid(value):
    return 1 / (1 + np.exp(-value))


def gate(coarse, fine, positive_kernel, negative_kernel):
    """Blend (F, h, w) levels with (2, 2 F, 3, 3) kernels; without a kernel, the weight is 1."""
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


def attention(cam, kernels, sides=(2, 4, 8, 16)):
    """Compute the attention of an (F, h, w) CAM from (positive, negative) kernels per gate."""
    height, width = cam.shape[1:]
    levels = [
        np.array([enlarged(pooled(plane, side), height, width) for plane in cam]) for side in sides
    ]
    blend = levels[0]
    for fine, (positive, negative) in zip(levels[1:], kernels, strict=True):
        blend = gate(blend, fine, positive, negative)
    return blend


def score(cam, blend, parts="both"):
    positive = (np.maximum(cam, 0) * np.maximum(blend, 0)).mean(axis=(1, 2))
    negative = (np.maximum(-cam, 0) * np.maximum(-blend, 0)).mean(axis=(1, 2))
    return {"both": positive - negative, "positive": positive, "negative": -negative}[parts]
