"""A random walk on colors with the whole matrix in float64; slow, for small images only."""

import math

import numpy as np


def transition(image, radius, sigma):
    """(3, H, W) image in gray levels -> (L, L), columns sum to 1."""
    _, height, width = image.shape
    cells = [(y, x) for y in range(height) for x in range(width)]
    matrix = np.zeros((len(cells), len(cells)))
    for i, (yi, xi) in enumerate(cells):
        for j, (yj, xj) in enumerate(cells):
            if (yi - yj) ** 2 + (xi - xj) ** 2 <= radius**2:
                gap = sum(
                    (float(image[c, yi, xi]) - float(image[c, yj, xj])) ** 2 for c in range(3)
                )
                matrix[i, j] = math.exp(-gap / (2 * sigma**2))
    return matrix / matrix.sum(axis=0, keepdims=True)


def walk(image, maps, radius, sigma, steps):
    """(M, H, W) maps times the transition matrix to the power of `steps`."""
    matrix = np.linalg.matrix_power(transition(image, radius, sigma), steps)
    return (maps.reshape(len(maps), -1) @ matrix).reshape(maps.shape)
