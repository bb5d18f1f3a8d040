"""RRM's reliable labels pixel by pixel, from the paper's description; slow."""

import math

import numpy as np


def power_probs(cam, present, alpha):
    """Compute (1 + P, H, W) scores of background and present classes from an (F, H, W) CAM."""
    height, width = cam.shape[1:]
    result = np.zeros((1 + len(present), height, width))
    for y in range(height):
        for x in range(width):
            values = [cam[c, y, x] for c in present]
            scores = [(1 - max(values, default=0.0)) ** alpha, *values]
            result[:, y, x] = np.array(scores) / sum(scores)
    return result


def reliable_label(cam, tags, valid, refine, *, alphas, confidence, share, background):
    """Label one image from its (F, H, W) CAM: (H, W), 255 where no class is reliable."""
    present = [c for c in range(len(tags)) if tags[c]]
    height, width = valid.shape
    pixels = [(y, x) for y in range(height) for x in range(width) if valid[y, x]]
    first, second = (refine(power_probs(cam, present, alpha)) for alpha in alphas)
    label = np.full((height, width), 255)

    def assigned_class(y, x):
        """Return the class that the unrefined CAM assigns to a pixel, None for background."""
        best = max(present, key=lambda c: cam[c, y, x], default=None)
        if best is None or cam[best, y, x] <= 0.1:
            return None
        return best if cam[best, y, x] > (1 - cam[best, y, x]) ** alphas[1] else None

    top = set()
    for c in present:
        members = [(cam[c, y, x], y, x) for y, x in pixels if assigned_class(y, x) == c]
        count = math.ceil(round(share * len(members), 6))
        top |= {(c, y, x) for _, y, x in sorted(members, reverse=True)[:count]}
    for y, x in pixels:
        winner, second_winner = (int(np.argmax(scores[:, y, x])) for scores in (first, second))
        if second_winner == 0:
            peak = max((cam[c, y, x] for c in present), default=0.0)
            if second[0, y, x] >= confidence and (1 - peak) ** alphas[1] > background:
                label[y, x] = 0
        elif winner and first[winner, y, x] >= confidence:
            c = present[winner - 1]
            if (c, y, x) in top:
                label[y, x] = c + 1
    return label
