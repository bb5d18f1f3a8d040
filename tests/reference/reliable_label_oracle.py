"""Reliable pixels pixel by pixel, from the description of RRM; slow and plain NumPy."""

import math

import numpy as np


def power_stack(cam, present, alpha):
    """(F, H, W) evidence -> (1 + P, H, W) scores of background and the present classes."""
    height, width = cam.shape[1:]
    result = np.zeros((1 + len(present), height, width))
    for y in range(height):
        for x in range(width):
            values = [cam[c, y, x] for c in present]
            scores = [(1 - max(values, default=0.0)) ** alpha, *values]
            result[:, y, x] = np.array(scores) / sum(scores)
    return result


def reliable_label(cam, tags, valid, refine, *, alphas, confidence, share, background):
    """(F, H, W) evidence of one image -> (H, W) labels, 255 where nothing is reliable."""
    present = [c for c in range(len(tags)) if tags[c]]
    height, width = valid.shape
    places = [(y, x) for y in range(height) for x in range(width) if valid[y, x]]
    much, little = (refine(power_stack(cam, present, alpha)) for alpha in alphas)
    label = np.full((height, width), 255)

    def claim(y, x):
        """The class that evidence itself gives a pixel to, None for background."""
        best = max(present, key=lambda c: cam[c, y, x], default=None)
        if best is None or cam[best, y, x] <= 0.1:
            return None
        return best if cam[best, y, x] > (1 - cam[best, y, x]) ** alphas[1] else None

    strong = set()
    for c in present:
        pixels = sorted(((cam[c, y, x], y, x) for y, x in places if claim(y, x) == c), reverse=True)
        kept = math.ceil(round(share * len(pixels), 6))
        strong |= {(c, y, x) for _, y, x in pixels[:kept]}
    for y, x in places:
        by_much, by_little = (int(np.argmax(scores[:, y, x])) for scores in (much, little))
        if by_little == 0:
            peak = max((cam[c, y, x] for c in present), default=0.0)
            if little[0, y, x] >= confidence and (1 - peak) ** alphas[1] > background:
                label[y, x] = 0
        elif by_much and much[by_much, y, x] >= confidence:
            c = present[by_much - 1]
            if (c, y, x) in strong:
                label[y, x] = c + 1
    return label
