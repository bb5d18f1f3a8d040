"""The decoder's test-time protocol by loops in float64, written from the formula; slow."""

import numpy as np


def bilinear(planes, height, width):
    """(C, h, w) -> (C, height, width), pixel centers aligned, edges repeated."""
    _, old_height, old_width = planes.shape
    result = np.zeros((len(planes), height, width))
    for y in range(height):
        at_y = min(max((y + 0.5) * old_height / height - 0.5, 0), old_height - 1)
        top = int(at_y)
        below, down = min(top + 1, old_height - 1), at_y - top
        for x in range(width):
            at_x = min(max((x + 0.5) * old_width / width - 0.5, 0), old_width - 1)
            left = int(at_x)
            beside, over = min(left + 1, old_width - 1), at_x - left
            upper = (1 - over) * planes[:, top, left] + over * planes[:, top, beside]
            lower = (1 - over) * planes[:, below, left] + over * planes[:, below, beside]
            result[:, y, x] = (1 - down) * upper + down * lower
    return result


def scores(image, logits_of, long_side, scales):
    """(3, H, W) normalized image -> (C, h, w), the largest over scales; scale 1 comes first."""
    _, height, width = image.shape
    longest = max(height, width)
    image = bilinear(image, height * long_side // longest, width * long_side // longest)
    grid, best = None, None
    for scale in scales:
        view = bilinear(image, int(image.shape[1] * scale), int(image.shape[2] * scale))
        upright = logits_of(view)
        mirrored = logits_of(view[:, :, ::-1].copy())[:, :, ::-1]
        grid = grid or upright.shape[1:]
        mean = (bilinear(upright, *grid) + bilinear(mirrored, *grid)) / 2
        best = mean if best is None else np.maximum(best, mean)
    return best


def mask(image, logits_of, long_side, scales):
    """(H, W) class values at the image's own size."""
    found = scores(image, logits_of, long_side, scales)
    return bilinear(found, *image.shape[1:]).argmax(axis=0)
