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
    """(F, H, W) evidence of one photo -> (H, W) labels, 255 where nothing is reliable."""
    present = [c for c in range(len(tags)) if tags[c]]
    height, width = valid.shape
    much, little = (refine(power_stack(cam, present, alpha)) for alpha in alphas)
    won = [[int(np.argmax(much[:, y, x])) for x in range(width)] for y in range(height)]
    label = np.full((height, width), 255)
    strong = set()
    for place, c in enumerate(present, start=1):
        pixels = [
            (cam[c, y, x], y, x)
            for y in range(height)
            for x in range(width)
            if won[y][x] == place and valid[y, x]
        ]
        pixels.sort(reverse=True)
        kept = math.ceil(round(share * len(pixels), 6))
        strong |= {(y, x) for _, y, x in pixels[:kept]}
    for y in range(height):
        for x in range(width):
            if not valid[y, x]:
                continue
            winner = won[y][x]
            if winner:
                if (y, x) in strong and much[winner, y, x] >= confidence:
                    label[y, x] = present[winner - 1] + 1
            elif np.argmax(little[:, y, x]) == 0 and little[0, y, x] >= confidence:
                peak = max((cam[c, y, x] for c in present), default=0.0)
                if 1 - peak > background:
                    label[y, x] = 0
    return label
