"""AFA by explicit loops in float64, written from the formulas; for tiny images."""

import math
from functools import lru_cache

import numpy as np
from tests.reference import par_oracle

IGNORE = 255


def resize(maps, size, align_corners=False):
    """Resize bilinearly, one axis after the other: (C, H, W) to (C, *size)."""
    maps = np.asarray(maps, dtype=np.float64)
    rows = resize_matrix(maps.shape[1], size[0], align_corners)
    columns = resize_matrix(maps.shape[2], size[1], align_corners)
    return rows @ maps @ columns.T


def resize_matrix(old, new, align_corners=False):
    """(new, old) weights of the source positions along one axis."""
    matrix = np.zeros((new, old))
    for index in range(new):
        first, second, share = neighbors(index, old, new, align_corners)
        matrix[index, first] += 1 - share
        matrix[index, second] += share
    return matrix


def neighbors(index, old, new, align_corners):
    """Return the two source indices of an output index, and the weight of the second."""
    if align_corners:
        source = index * (old - 1) / (new - 1) if new > 1 else 0.0
    else:
        source = max((index + 0.5) * old / new - 0.5, 0.0)
    first = min(int(source), old - 1)
    return first, min(first + 1, old - 1), source - first


def multi_scale_cam(compute_cam, image, scales):
    """Sum the positive maximum over flips over all scales: (3, H, W) to (F, H, W)."""
    height, width = image.shape[1:]
    total = 0.0
    for scale in scales:
        scaled = resize(image, (int(scale * height), int(scale * width)))
        unflipped = resize(compute_cam(scaled), (height, width))
        flipped = resize(compute_cam(scaled[:, :, ::-1])[:, :, ::-1], (height, width))
        total = total + np.maximum(np.maximum(unflipped, flipped), 0)
    for index in range(len(total)):
        total[index] -= total[index].min()
        total[index] /= total[index].max() + 1e-5
    return total


def softmax(scores):
    """Compute the softmax over the first axis."""
    weights = np.exp(scores - scores.max(axis=0))
    return weights / weights.sum(axis=0)


def class_probs(cam, class_indices, background):
    """Compute the softmax of [background, CAMs of the classes]: (1 + K, h, w)."""
    score = np.full((1, *cam.shape[1:]), background)
    return softmax(np.concatenate([score, cam[class_indices]]))


def refined_classes(image, sets, class_indices, iterations, dilations=(1, 2, 4, 8, 12, 24)):
    """Refine sets of half-size probabilities with PAR; return mask values at full size."""
    small = resize(image, sets[0].shape[1:]) / 255
    weights = par_kernel(small.tobytes(), small.shape, dilations)
    values = np.array([0, *(index + 1 for index in class_indices)])
    for probs in sets:
        refined = par_oracle.iterate(probs, weights, dilations, iterations)
        yield values[resize(refined, image.shape[1:]).argmax(axis=0)]


@lru_cache(maxsize=4)
def par_kernel(data, shape, dilations):
    """Compute the kernel of an image once for all labels that are made from it."""
    return par_oracle.kernel(np.frombuffer(data).reshape(shape), dilations)


def combine(strict, lenient):
    """Keep foreground for the high background score, background for both; ignore the rest."""
    label = strict.copy()
    label[strict == 0] = IGNORE
    label[(strict == 0) & (lenient == 0)] = 0
    return label


def half_size(size):
    return size[0] // 2, size[1] // 2


def pseudo_label(image, cam, tags, backgrounds, *par):
    """Specification 2.5: (3, H, W) image in [0, 255] and (F, H, W) CAM to (H, W).

    `par`: iterations, dilations.
    """
    class_indices = [index for index, tag in enumerate(tags) if tag]
    small = resize(cam, half_size(image.shape[1:]))
    sets = [class_probs(small, class_indices, background) for background in backgrounds]
    return combine(*refined_classes(image, sets, class_indices, *par))


def near(i, j, width, radius):
    return abs(i // width - j // width) <= radius and abs(i % width - j % width) <= radius


def radius_mask(height, width, radius):
    positions = range(height * width)
    return np.array([[near(i, j, width, radius) for j in positions] for i in positions])


def affinity_label(label, size, radius):
    """Specification 2.6: compare the labels of all pairs of positions."""
    height, width = label.shape
    small = [
        label[y * height // size[0], x * width // size[1]]
        for y in range(size[0])
        for x in range(size[1])
    ]
    pairs = np.full((len(small), len(small)), IGNORE)
    for i, first in enumerate(small):
        for j, second in enumerate(small):
            if near(i, j, size[1], radius) and IGNORE not in (first, second):
                pairs[i, j] = int(first == second)
    return pairs


def affinity_loss(probs, pairs):
    """Specification 2.6 over the batch: (N, L, L) each."""
    same = different = 0.0
    num_same = num_different = 0
    for value, pair in zip(probs.flatten(), pairs.flatten(), strict=True):
        if pair == 1:
            same, num_same = same + (1 - value), num_same + 1
        elif pair == 0:
            different, num_different = different + value, num_different + 1
    return 0.5 * (same / (num_same + 1) + different / (num_different + 1))


def propagate(scores, affinity, radius, power=2):
    """Specification 2.7: (C, h, w) scores, (L, L) affinity; columns over (their sum + 0.1)."""
    classes, height, width = scores.shape
    positions = range(height * width)
    flat, propagated = scores.reshape(classes, -1), np.zeros((classes, height * width))
    for j in positions:
        column = [affinity[i, j] ** power if near(i, j, width, radius) else 0.0 for i in positions]
        total = sum(column) + 0.1
        for i in positions:
            propagated[:, j] += flat[:, i] * column[i] / total
    return propagated.reshape(scores.shape)


def propagated_label(image, cam, tags, affinity, size, box, backgrounds, radius, par):
    """Specification 2.7, with PAR inside the box (top, bottom, left, right); ignored outside.

    `par`: iterations, dilations.
    """
    class_indices = [index for index, tag in enumerate(tags) if tag]
    top, bottom, left, right = box
    crop, sets = image[:, top:bottom, left:right], []
    for background in backgrounds:
        probs = class_probs(resize(cam, size), class_indices, background)
        scores = propagate(probs, affinity, radius)
        inside = resize(scores, image.shape[1:])[:, top:bottom, left:right]
        sets.append(resize(inside, half_size(crop.shape[1:]), align_corners=True))
    label = np.full(image.shape[1:], IGNORE)
    label[top:bottom, left:right] = combine(*refined_classes(crop, sets, class_indices, *par))
    return label


def segmentation_loss(logits, label):
    """Specification 2.8: half the mean over background plus half the mean over foreground."""
    sums, counts = [0.0, 0.0], [0, 0]
    for n, y, x in np.ndindex(*label.shape):
        value = label[n, y, x]
        if value == IGNORE:
            continue
        scores = logits[n, :, y, x]
        part = int(value != 0)
        sums[part] += math.log(np.exp(scores - scores.max()).sum()) + scores.max() - scores[value]
        counts[part] += 1
    return sum(0.5 * total / count for total, count in zip(sums, counts, strict=True) if count)


def learning_rate(step, full=6e-5, total=20_000, warmup=1500):
    """Specification 2.9."""
    if step < warmup:
        return full * (1 - (1 - step / warmup) * (1 - 1e-6))
    return full * (1 - step / total)
