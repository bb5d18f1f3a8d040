"""1Stage's self-labels and their loss by explicit loops, from the paper; slow, for tiny maps."""

import math

import numpy as np

IGNORE = 255


def label(score, tags, valid, share=0.6, background_share=0.7, min_score=0.2):
    """Label one image from (C, H, W) scores, (F,) tags and an (H, W) mask: (H, W)."""
    count, height, width = score.shape
    present = [True, *(bool(tag) for tag in tags)]
    threshold = []
    for c in range(count):
        peak = max(score[c, y, x] for y in range(height) for x in range(width) if valid[y, x])
        threshold.append(max(min_score, (background_share if c == 0 else share) * peak))
    result = np.full((height, width), IGNORE)
    for y in range(height):
        for x in range(width):
            confident = [c for c in range(count) if present[c] and score[c, y, x] > threshold[c]]
            if valid[y, x] and len(confident) == 1:
                result[y, x] = confident[0]
    return result


def weights(counts):
    """Compute the weight of each class from the pixel counts of one image."""
    total = sum(counts)
    return [(total - own) / (1 + total) for own in counts]


def loss(logits, labels, tags):
    """Average the loss over images: (N, C, H, W), (N, H, W), (N, F)."""
    images = []
    for scores, mask, present in zip(logits, labels, tags, strict=True):
        classes = len(scores)
        counts = [int((mask == c).sum()) for c in range(classes)]
        required = [0, *(k + 1 for k, tag in enumerate(present) if tag)]
        if any(counts[c] == 0 for c in required):
            images.append(0.0)
            continue
        weight, total = weights(counts), 0.0
        for (y, x), c in np.ndenumerate(mask):
            if c != IGNORE:
                norm = math.log(sum(math.exp(scores[k, y, x]) for k in range(classes)))
                total += weight[c] * (norm - scores[c, y, x])
        images.append(total / mask.size)
    return sum(images) / len(images)
