"""PAR by explicit loops in float64, from the formula; slow, for small images only."""

import math

import numpy as np


def clamp(value, size):
    return min(max(value, 0), size - 1)


def offsets(dilations):
    neighbors = []
    for d in dilations:
        for dy in (-d, 0, d):
            for dx in (-d, 0, d):
                if (dy, dx) != (0, 0):
                    neighbors.append((dy, dx))
    return neighbors


def unbiased_std(values):
    mean = sum(values) / len(values)
    return math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def softmax(logits):
    peak = max(logits)
    weights = [math.exp(v - peak) for v in logits]
    return [w / sum(weights) for w in weights]


def position_softmax(dilations, w2):
    distances = [math.hypot(dy, dx) for dy, dx in offsets(dilations)]
    deviation = unbiased_std(distances)
    return softmax([-((p / (w2 * deviation)) ** 2) for p in distances])


def kernel(image, dilations=(1, 2, 4, 8, 12, 24), w1=0.3, w2=0.3, w3=0.01, position=True):
    """Compute the (K, H, W) kernel of a (3, H, W) image in [0, 1]."""
    _, height, width = image.shape
    taps = offsets(dilations)
    near = position_softmax(dilations, w2)
    result = np.zeros((len(taps), height, width))
    for y in range(height):
        for x in range(width):
            logits = [0.0] * len(taps)
            for channel in range(3):
                colors = [
                    float(image[channel, clamp(y + dy, height), clamp(x + dx, width)])
                    for dy, dx in taps
                ]
                deviation = unbiased_std(colors) + 1e-8
                center = float(image[channel, y, x])
                terms = [(abs(center - color) / (w1 * deviation)) ** 2 / 3 for color in colors]
                # The softmax ignores a common offset, which could be 1e15 and swamp the others.
                smallest = min(terms)
                for j, term in enumerate(terms):
                    logits[j] -= term - smallest
            for j, weight in enumerate(softmax(logits)):
                result[j, y, x] = weight + (w3 * near[j] if position else 0.0)
    return result


def iterate(maps, weights, dilations, iterations):
    """Average (M, H, W) maps over neighbors, without renormalizing."""
    taps = offsets(dilations)
    num, height, width = maps.shape
    for _ in range(iterations):
        averaged = np.zeros_like(maps, dtype=np.float64)
        for m in range(num):
            for y in range(height):
                for x in range(width):
                    for j, (dy, dx) in enumerate(taps):
                        source = maps[m, clamp(y + dy, height), clamp(x + dx, width)]
                        averaged[m, y, x] += weights[j, y, x] * source
        maps = averaged
    return maps
