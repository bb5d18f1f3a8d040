"""Dense CRF and its filters in float64, from the formulas; slow, for small images only."""

import math

import numpy as np


def features(image, sxy, srgb=None):
    """Compute (H * W, 2) position or (H * W, 5) bilateral features of an (H, W, 3) image."""
    height, width = image.shape[:2]
    rows = []
    for y in range(height):
        for x in range(width):
            color = [] if srgb is None else [float(c) / srgb for c in image[y, x]]
            rows.append([x / sxy, y / sxy, *color])
    return np.array(rows)


def gaussian(points):
    """Compute the (P, P) exact kernel exp(-|f_i - f_j|^2 / 2)."""
    distance = ((points[:, None] - points[None]) ** 2).sum(axis=2)
    return np.exp(-distance / 2)


def embedding(d):
    """Return the (d + 1, d) matrix onto the zero-sum plane, scaled to the filter's variance."""
    matrix = np.zeros((d + 1, d))
    for column in range(1, d + 1):
        matrix[:column, column - 1] = 1
        matrix[column, column - 1] = -column
        matrix[:, column - 1] /= math.sqrt(column * (column + 1))
    return matrix * math.sqrt(2 / 3) * (d + 1)


def simplex(lifted):
    """Find the D corners around a point of the plane, and their barycentric weights."""
    size = len(lifted)
    base = [size * round(v / size) for v in lifted]
    surplus = sum(base) // size
    distance = [v - b for v, b in zip(lifted, base, strict=True)]
    descending = sorted(range(size), key=lambda i: (-distance[i], i))
    rank = {axis: position + surplus for position, axis in enumerate(descending)}
    for axis in range(size):
        if rank[axis] < 0:
            rank[axis] += size
            base[axis] += size
        elif rank[axis] >= size:
            rank[axis] -= size
            base[axis] -= size
    weight = [0.0] * (size + 1)
    for axis in range(size):
        fraction = (lifted[axis] - base[axis]) / size
        weight[size - 1 - rank[axis]] += fraction
        weight[size - rank[axis]] -= fraction
    weight[0] += 1 + weight.pop()
    corners = []
    for k in range(size):
        steps = [k if rank[axis] <= size - 1 - k else k - size for axis in range(size)]
        corners.append(tuple(b + s for b, s in zip(base, steps, strict=True)))
    return corners, weight


def lattice(points):
    """Compute the (P, P) matrix of splat, blur and slice of the permutohedral lattice."""
    num, d = points.shape
    index, weights = {}, np.zeros((num, 0))
    for p, lifted in enumerate(points @ embedding(d).T):
        for corner, weight in zip(*simplex(lifted), strict=True):
            if corner not in index:
                index[corner] = len(index)
                weights = np.hstack([weights, np.zeros((num, 1))])
            weights[p, index[corner]] += weight
    blurred = weights.T
    for axis in range(d + 1):
        blur = np.eye(len(index))
        for corner, row in index.items():
            for sign in (1, -1):
                other = tuple(c + sign * (1 - (d + 1) * (i == axis)) for i, c in enumerate(corner))
                if other in index:
                    blur[row, index[other]] = 0.5
        blurred = blur @ blurred
    return weights @ blurred / (1 + 2.0**-d)


def symmetric(kernel):
    """Compute D^-1/2 K D^-1/2 with D = K1."""
    scale = 1 / np.sqrt(kernel.sum(axis=1) + 1e-20)
    return scale[:, None] * kernel * scale[None]


def softmax(logits):
    weight = np.exp(logits - logits.max(axis=1, keepdims=True))
    return weight / weight.sum(axis=1, keepdims=True)


def mean_field(log_probs, kernels, weights, iterations):
    """Run mean field on (P, C) log-probabilities with (P, P) normalized kernels."""
    probs = softmax(log_probs)
    for _ in range(iterations):
        messages = [w * kernel @ probs for kernel, w in zip(kernels, weights, strict=True)]
        probs = softmax(log_probs + sum(messages))
    return probs


def energy(probs, kernel, weight, roi):
    """Compute energy and gradient of one image from (P, C), (P, P), (P,) and (P,)."""
    inside = probs * roi[:, None]
    filtered = kernel @ inside * weight[:, None]
    return -(inside * filtered).sum(), -2 * filtered * roi[:, None]
