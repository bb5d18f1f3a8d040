"""Dense CRF and its filters in float64, written from the formulas; slow, for small images only."""

import math

import numpy as np


def features(image, sxy, srgb=None):
    """(H, W, 3) image -> (H * W, 2) places, or (H * W, 5) with colors, over their widths."""
    height, width = image.shape[:2]
    rows = []
    for y in range(height):
        for x in range(width):
            color = [] if srgb is None else [float(c) / srgb for c in image[y, x]]
            rows.append([x / sxy, y / sxy, *color])
    return np.array(rows)


def gaussian(points):
    """(P, P) exact kernel exp(-|f_i - f_j|^2 / 2)."""
    gap = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    return np.exp(-gap / 2)


def embedding(d):
    """(d + 1, d) matrix onto the plane of zero sum, scaled to the variance of the three steps."""
    matrix = np.zeros((d + 1, d))
    for column in range(1, d + 1):
        matrix[:column, column - 1] = 1
        matrix[column, column - 1] = -column
        matrix[:, column - 1] /= math.sqrt(column * (column + 1))
    return matrix * math.sqrt(2 / 3) * (d + 1)


def simplex(lifted):
    """The D corners around a point of the plane, and their barycentric weights."""
    size = len(lifted)
    base = [size * round(v / size) for v in lifted]
    surplus = sum(base) // size
    gap = [v - b for v, b in zip(lifted, base, strict=True)]
    falling = sorted(range(size), key=lambda i: (-gap[i], i))
    rank = {axis: place + surplus for place, axis in enumerate(falling)}
    for axis in range(size):
        if rank[axis] < 0:
            rank[axis] += size
            base[axis] += size
        elif rank[axis] >= size:
            rank[axis] -= size
            base[axis] -= size
    weight = [0.0] * (size + 1)
    for axis in range(size):
        share = (lifted[axis] - base[axis]) / size
        weight[size - 1 - rank[axis]] += share
        weight[size - rank[axis]] -= share
    weight[0] += 1 + weight.pop()
    corners = []
    for k in range(size):
        moved = [k if rank[axis] <= size - 1 - k else k - size for axis in range(size)]
        corners.append(tuple(b + m for b, m in zip(base, moved, strict=True)))
    return corners, weight


def lattice(points):
    """(P, P) matrix of splat, blur and slice of the permutohedral lattice."""
    num, d = points.shape
    places, shares = {}, np.zeros((num, 0))
    for p, lifted in enumerate(points @ embedding(d).T):
        for corner, weight in zip(*simplex(lifted), strict=True):
            if corner not in places:
                places[corner] = len(places)
                shares = np.hstack([shares, np.zeros((num, 1))])
            shares[p, places[corner]] += weight
    moved = shares.T
    for axis in range(d + 1):
        blur = np.eye(len(places))
        for corner, row in places.items():
            for sign in (1, -1):
                other = tuple(c + sign * (1 - (d + 1) * (i == axis)) for i, c in enumerate(corner))
                if other in places:
                    blur[row, places[other]] = 0.5
        moved = blur @ moved
    return shares @ moved / (1 + 2.0**-d)


def symmetric(kernel):
    """D^-1/2 K D^-1/2 with D = K1."""
    scale = 1 / np.sqrt(kernel.sum(axis=1) + 1e-20)
    return scale[:, None] * kernel * scale[None]


def softmax(logits):
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def mean_field(log_probs, kernels, weights, iterations):
    """(P, C) log-probabilities and (P, P) normalized kernels -> (P, C) probabilities."""
    probs = softmax(log_probs)
    for _ in range(iterations):
        messages = [w * kernel @ probs for kernel, w in zip(kernels, weights, strict=True)]
        probs = softmax(log_probs + sum(messages))
    return probs


def energy(probs, kernel, gate, roi):
    """Energy and gradient of one image: (P, C), (P, P), (P,), (P,)."""
    inside = probs * roi[:, None]
    pull = kernel @ inside * gate[:, None]
    return -(inside * pull).sum(), -2 * pull * roi[:, None]
