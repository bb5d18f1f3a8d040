"""Multi-scale inference with a decoder by loops in float64, from the formula; slow."""

import numpy as np


def bilinear(planes, height, width):
    """Resize (C, h, w) to (C, height, width) without aligning corners."""
    _, old_height, old_width = planes.shape
    result = np.zeros((len(planes), height, width))
    for y in range(height):
        at_y = min(max((y + 0.5) * old_height / height - 0.5, 0), old_height - 1)
        top = int(at_y)
        below, down = min(top + 1, old_height - 1), at_y - top
        for x in range(width):
            at_x = min(max((x + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            left = int(at_x)
            right, across = min(left + 1, old_width - 1), at_x - left
            upper = (1 - across) * planes[:, top, left] + across * planes[:, top, right]
            lower = (1 - across) * planes[:, below, left] + across * planes[:, below, right]
            result[:, y, x] = (1 - down) * upper + down * lower
    return result


def scores(image, compute_logits, long_side, scales):
    """Take the maximum over scales, scale 1 first: (3, H, W) normalized image to (C, h, w)."""
    _, height, width = image.shape
    longest = max(height, width)
    image = bilinear(image, height * long_side // longest, width * long_side // longest)
    size, largest = None, None
    for scale in scales:
        scaled = bilinear(image, int(image.shape[1] * scale), int(image.shape[2] * scale))
        unflipped = compute_logits(scaled)
        flipped = compute_logits(scaled[:, :, ::-1].copy())[:, :, ::-1]
        size = size or unflipped.shape[1:]
        mean = (bilinear(unflipped, *size) + bilinear(flipped, *size)) / 2
        largest = mean if largest is None else np.maximum(largest, mean)
    return largest


def mask(image, compute_logits, long_side, scales):
    """Compute (H, W) mask values at the image's size."""
    logits = scores(image, compute_logits, long_side, scales)
    return bilinear(logits, *image.shape[1:]).argmax(axis=0)
