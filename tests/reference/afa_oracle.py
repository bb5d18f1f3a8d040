"""The pieces of AFA by explicit loops in float64, written from the formulas; for tiny images."""

import math

import numpy as np
from tests.reference import par_oracle

IGNORE = 255


def resize(maps, size, align_corners=False):
    """Bilinear, one output pixel at a time: (C, H, W) -> (C, *size)."""
    maps = np.asarray(maps, dtype=np.float64)
    result = np.zeros((len(maps), *size))
    for y in range(size[0]):
        for x in range(size[1]):
            top, bottom, down = neighbors(y, maps.shape[1], size[0], align_corners)
            left, right, along = neighbors(x, maps.shape[2], size[1], align_corners)
            upper = maps[:, top, left] * (1 - along) + maps[:, top, right] * along
            lower = maps[:, bottom, left] * (1 - along) + maps[:, bottom, right] * along
            result[:, y, x] = upper * (1 - down) + lower * down
    return result


def neighbors(place, old, new, align_corners):
    """The two source indices of an output place, and the share of the second."""
    if align_corners:
        source = place * (old - 1) / (new - 1) if new > 1 else 0.0
    else:
        source = max((place + 0.5) * old / new - 0.5, 0.0)
    first = min(int(source), old - 1)
    return first, min(first + 1, old - 1), source - first


def multi_scale_cam(cam_of, image, scales):
    """(3, H, W) image -> (F, H, W): sum over scales of the positive part of the larger mirror."""
    height, width = image.shape[1:]
    total = 0.0
    for scale in scales:
        view = resize(image, (int(scale * height), int(scale * width)))
        upright = resize(cam_of(view), (height, width))
        mirrored = resize(cam_of(view[:, :, ::-1])[:, :, ::-1], (height, width))
        total = total + np.maximum(np.maximum(upright, mirrored), 0)
    for index in range(len(total)):
        total[index] -= total[index].min()
        total[index] /= total[index].max() + 1e-5
    return total


def cam_to_label(cam, tags, background, high=None, low=None):
    """Pixel by pixel; with `high` and `low` what lies between them is ignored."""
    label = np.zeros(cam.shape[1:], dtype=np.int64)
    for y, x in np.ndindex(*label.shape):
        scores = [value * tag for value, tag in zip(cam[:, y, x], tags, strict=True)]
        value, winner = max(scores), int(np.argmax(scores)) + 1
        if high is None:
            label[y, x] = 0 if value <= background else winner
        else:
            label[y, x] = winner if value > high else IGNORE
            if value <= low:
                label[y, x] = 0
    return label


def softmax(scores):
    """Over the first axis."""
    weights = np.exp(scores - scores.max(axis=0))
    return weights / weights.sum(axis=0)


def key_scores(cam, keys, background):
    """[background, evidence of the keys], softmax over them: (1 + K, h, w)."""
    level = np.full((1, *cam.shape[1:]), background)
    return softmax(np.concatenate([level, cam[keys]]))


def refined_class(image, scores, keys, iterations, dilations=(1, 2, 4, 8, 12, 24)):
    """PAR at half size, back to full size, winner as class value; scores at half size."""
    small = resize(image, scores.shape[1:]) / 255
    weights = par_oracle.kernel(small, dilations)
    refined = par_oracle.iterate(scores, weights, dilations, iterations)
    winner = resize(refined, image.shape[1:]).argmax(axis=0)
    return np.array([0, *(key + 1 for key in keys)])[winner]


def combine(strict, lenient):
    """Foreground of the high background, background of both, the rest ignored."""
    label = strict.copy()
    label[strict == 0] = IGNORE
    label[(strict == 0) & (lenient == 0)] = 0
    return label


def half(size):
    return size[0] // 2, size[1] // 2


def par_label(image, cam, tags, high, low, iterations):
    """2.5: (3, H, W) image in [0, 255], (F, H, W) evidence -> (H, W)."""
    keys = [index for index, tag in enumerate(tags) if tag]
    small = resize(cam, half(image.shape[1:]), align_corners=True)
    return combine(
        *(
            refined_class(image, key_scores(small, keys, level), keys, iterations)
            for level in (high, low)
        )
    )


def near(i, j, width, radius):
    return abs(i // width - j // width) <= radius and abs(i % width - j % width) <= radius


def radius_mask(height, width, radius):
    cells = range(height * width)
    return np.array([[near(i, j, width, radius) for j in cells] for i in cells])


def affinity_label(label, grid, radius):
    """2.6: top-left pixels of the cells, all pairs."""
    height, width = label.shape
    cells = [
        label[y * height // grid[0], x * width // grid[1]]
        for y in range(grid[0])
        for x in range(grid[1])
    ]
    pairs = np.full((len(cells), len(cells)), IGNORE)
    for i, first in enumerate(cells):
        for j, second in enumerate(cells):
            if near(i, j, grid[1], radius) and IGNORE not in (first, second):
                pairs[i, j] = int(first == second)
    return pairs


def affinity_loss(probs, pairs):
    """2.6, over the whole batch: (N, L, L) each."""
    alike = unlike = 0.0
    num_alike = num_unlike = 0
    for value, pair in zip(probs.flatten(), pairs.flatten(), strict=True):
        if pair == 1:
            alike, num_alike = alike + (1 - value), num_alike + 1
        elif pair == 0:
            unlike, num_unlike = unlike + value, num_unlike + 1
    return 0.5 * (alike / (num_alike + 1) + unlike / (num_unlike + 1))


def propagate(scores, affinity, radius, power=2):
    """2.7: (C, h, w) scores, (L, L) affinity; columns over (their sum + 0.1)."""
    classes, height, width = scores.shape
    cells = range(height * width)
    flat, moved = scores.reshape(classes, -1), np.zeros((classes, height * width))
    for j in cells:
        column = [affinity[i, j] ** power if near(i, j, width, radius) else 0.0 for i in cells]
        total = sum(column) + 0.1
        for i in cells:
            moved[:, j] += flat[:, i] * column[i] / total
    return moved.reshape(scores.shape)


def propagated_label(image, cam, tags, affinity, grid, box, high, low, radius, par):
    """2.7, PAR inside the box (top, bottom, left, right) alone; outside ignored.

    `par`: iterations, dilations.
    """
    keys = [index for index, tag in enumerate(tags) if tag]
    top, bottom, left, right = box
    cuts = []
    for level in (high, low):
        scores = propagate(key_scores(resize(cam, grid), keys, level), affinity, radius)
        inside = resize(scores, image.shape[1:])[:, top:bottom, left:right]
        single_image = image[:, top:bottom, left:right]
        small = resize(inside, half(single_image.shape[1:]), align_corners=True)
        cuts.append(refined_class(single_image, small, keys, *par))
    label = np.full(image.shape[1:], IGNORE)
    label[top:bottom, left:right] = combine(*cuts)
    return label


def segmentation_loss(logits, label):
    """2.8: (N, C, H, W), (N, H, W); half the mean over background, half over foreground."""
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
    """2.9."""
    if step < warmup:
        return full * (1 - (1 - step / warmup) * (1 - 1e-6))
    return full * (1 - step / total)
