"""SEAM's formulas by explicit loops in float64, from the paper; slow, for tiny maps."""

import numpy as np

EPS = 1e-5


def unit(features):
    """Normalize (D, L) columns to length one."""
    return features / (np.sqrt((features**2).sum(axis=0)) + EPS)


def correlation_input(cam):
    """Normalize an (F, h, w) CAM, keep the strongest class, prepend background: (1 + F, h, w)."""
    count, height, width = cam.shape
    result = np.zeros((1 + count, height, width))
    score = np.stack([np.maximum(plane, 0) / (max(plane.max(), 0) + EPS) for plane in cam])
    for y in range(height):
        for x in range(width):
            best = max(score[k, y, x] for k in range(count))
            result[0, y, x] = 1 - best
            for k in range(count):
                if score[k, y, x] == best:
                    result[1 + k, y, x] = best
    return result


def correlated(score, features):
    """Average (C, L) scores by the similarity of (D, L) features, with the full matrix."""
    f = unit(features)
    pairs = np.zeros((f.shape[1],) * 2)
    for i in range(f.shape[1]):
        for j in range(f.shape[1]):
            pairs[i, j] = max(0.0, float(f[:, i] @ f[:, j]))
    result = np.zeros(score.shape)
    for j in range(f.shape[1]):
        total = sum(pairs[i, j] for i in range(f.shape[1])) + EPS
        for c in range(score.shape[0]):
            result[c, j] = sum(score[c, i] * pairs[i, j] / total for i in range(f.shape[1]))
    return result


def ranged(cam):
    """Scale (F, h, w) planes to [0, 1] by their own ranges."""
    result = np.zeros(cam.shape)
    for k, plane in enumerate(np.maximum(cam, 0)):
        span = plane.max() - plane.min() + EPS
        for index, value in np.ndenumerate(plane):
            result[(k, *index)] = max(0.0, value - plane.min() - EPS) / span
    return result


def cross_equivariance(plain, refined, share):
    """Compute one direction of ECR for one image: (F, h, w) plain, (1 + F, h, w) refined."""
    differences = []
    count, height, width = plain.shape
    for y in range(height):
        for x in range(width):
            best = max(plain[k, y, x] for k in range(count))
            differences.append(abs(1 - best - refined[0, y, x]))
            for k in range(count):
                target = best if plain[k, y, x] == best else 0.0
                differences.append(abs(target - refined[1 + k, y, x]))
    differences.sort(reverse=True)
    top = differences[: max(1, int(len(differences) * share))]
    return sum(top) / len(top)


def min_pooling(maps, share):
    """Compute the min-pooling loss of one image: (F, h, w)."""
    height, width = maps.shape[1:]
    maxima = sorted(max(maps[:, y, x]) for y in range(height) for x in range(width))
    smallest = maxima[: max(1, int(len(maxima) * share))]
    return sum(max(0.0, value) for value in smallest) / len(smallest)
