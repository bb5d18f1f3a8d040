"""PAMR by explicit loops in float64, from the formula; slow, for small images only."""

import math

import numpy as np


def clamp(value, size):
    return min(max(value, 0), size - 1)


def ring(d):
    return [(dy, dx) for dy in (-d, 0, d) for dx in (-d, 0, d)]


def kernel(image, dilations=(1, 2, 4, 8, 12, 24), width=0.1):
    """Compute the (K, H, W) kernel of a (3, H, W) image in [0, 1]."""
    _, height, breadth = image.shape
    taps = [(dy, dx) for d in dilations for dy, dx in ring(d) if (dy, dx) != (0, 0)]
    result = np.zeros((len(taps), height, breadth))
    for y in range(height):
        for x in range(breadth):
            logits = np.zeros(len(taps))
            for channel in range(3):

                def color(dy, dx, plane=image[channel], y=y, x=x):
                    return float(plane[clamp(y + dy, height), clamp(x + dx, breadth)])

                nine_of_each = [color(dy, dx) for d in dilations for dy, dx in ring(d)]
                deviation = float(np.std(nine_of_each, ddof=1))
                for j, (dy, dx) in enumerate(taps):
                    difference = abs(color(0, 0) - color(dy, dx))
                    logits[j] -= difference / (1e-8 + width * deviation) / 3
            weights = [math.exp(v - logits.max()) for v in logits]
            result[:, y, x] = np.array(weights) / sum(weights)
    return result
