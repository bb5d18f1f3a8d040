"""Random walk on colors with the dense matrix in float64; slow, for small images only."""

import math

import numpy as np


def transition(image, radius, sigma):
    """Compute the (L, L) matrix of a (3, H, W) image in gray levels; columns sum to 1."""
    _, height, width = image.shape
    pixels = [(y, x) for y in range(height) for x in range(width)]
    matrix = np.zeros((len(pixels), len(pixels)))
    for i, (yi, xi) in enumerate(pixels):
        for j, (yj, xj) in enumerate(pixels):
            if (yi - yj) ** 2 + (xi - xj) ** 2 <= radius**2:
                distance = sum(
                    (float(image[c, yi, xi]) - float(image[c, yj, xj])) ** 2 for c in range(3)
                )
                matrix[i, j] = math.exp(-distance / (2 * sigma**2))
    return matrix / matrix.sum(axis=0, keepdims=True)


def walk(image, maps, radius, sigma, steps):
    """Multiply (M, H, W) maps by the transition matrix to the power of `steps`."""
    matrix = np.linalg.matrix_power(transition(image, radius, sigma), steps)
    return (maps.reshape(len(maps), -1) @ matrix).reshape(maps.shape)
