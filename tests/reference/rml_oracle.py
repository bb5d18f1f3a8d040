"""One step of RML by explicit loops in float64, written from Specification R1 to R16; slow.

Every function takes float64 tensors and loops over images, classes and positions, so that autograd
gives the gradient of the formula itself.
"""

import torch
from tests.reference import afa_oracle
from torch import Tensor

IGNORE = 255
KAPPA = 0.01


def resize(plane: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize one (h, w) plane."""
    rows, columns = (
        torch.from_numpy(afa_oracle.resize_matrix(old, new))
        for old, new in zip(plane.shape, size, strict=True)
    )
    return rows @ plane @ columns.T


def top_left(mask: Tensor, size: tuple[int, int]) -> list[list[bool]]:
    """R2: a position counts if the top-left pixel of its block is real."""
    height, width = mask.shape
    return [
        [bool(mask[y * height // size[0], x * width // size[1]]) for x in range(size[1])]
        for y in range(size[0])
    ]


def classification(logits: Tensor, tags: Tensor) -> Tensor:
    """R14: binary cross-entropy, averaged over classes and images."""
    total = torch.zeros((), dtype=torch.float64)
    for row, tag_row in zip(logits, tags, strict=True):
        for logit, tag in zip(row, tag_row, strict=True):
            p = 1 / (1 + torch.exp(-logit))
            total = total - (torch.log(p) if tag else torch.log(1 - p))
    return total / logits.numel()


def normalized(cam: Tensor) -> Tensor:
    """R1: one (h, w) map, minimum 0 and maximum almost 1, with gradient through both."""
    positive = torch.where(cam > 0, cam, torch.zeros_like(cam))
    shifted = positive - positive.min()
    return shifted / (shifted.max() + 1e-5)


def equivariance(
    cam: Tensor, small_cam: Tensor, tags: Tensor, valid: Tensor, size: tuple[int, int]
) -> Tensor:
    """R3: mean over real pixels of the small view and present classes."""
    total, count = torch.zeros((), dtype=torch.float64), 0
    for n, tag_row in enumerate(tags):
        real = torch.tensor(top_left(valid[n], size))
        for c, tag in enumerate(tag_row):
            if tag:
                first = resize(normalized(cam[n, c]), size)
                second = resize(normalized(small_cam[n, c]), size)
                total = total + (first - second).abs()[real].sum()
                count += int(real.sum())
    return total / count


def similarity(cam: Tensor, features: Tensor, tags: Tensor) -> Tensor:
    """R4, R5: mean positive cosine of pairs of classes of the batch."""
    prototypes = []
    for c in range(tags.shape[1]):
        own = []
        for n in range(len(tags)):
            if tags[n, c]:
                weight = normalized(cam[n, c])
                own.append((weight * features[n]).sum(dim=(1, 2)) / (weight.sum() + 1e-5))
        if own:
            prototypes.append(sum(own) / len(own))
    cosines = []
    for i, first in enumerate(prototypes):
        for j, second in enumerate(prototypes):
            if i != j:
                cosine = (first @ second) / (first.norm() * second.norm())
                cosines.append(torch.clamp(cosine, min=0))
    return sum(cosines) / len(cosines) if cosines else torch.zeros((), dtype=torch.float64)


def ciml(large: dict, small: dict, batch: dict, size: tuple[int, int], alpha: float) -> Tensor:
    """Eq. 4."""
    tags = batch["tags"]
    distance = equivariance(large["cam"], small["cam"], tags, batch["valid"], size)
    pairs = similarity(large["cam"], large["features"], tags)
    return distance + alpha * (pairs + similarity(small["cam"], small["features"], tags))


def mfml(context: Tensor, small_context: Tensor, valid: Tensor, beta: float) -> Tensor:
    """R7 and R8 (`gauss`): alignment, and information per channel, at the real positions."""
    grid = tuple(small_context.shape[2:])
    channels = context.shape[1]
    pairs = [([], []) for _ in range(channels)]
    for n in range(len(context)):
        real = torch.tensor(top_left(valid[n], grid))
        for k in range(channels):
            pairs[k][0].append(resize(context[n, k], grid)[real])
            pairs[k][1].append(small_context[n, k][real])
    alignment, information = [], []
    for first, second in pairs:
        x, y = torch.cat(first), torch.cat(second)
        alignment.append((x - y).abs().mean())
        x, y = x - x.mean(), y - y.mean()
        squared = (x * y).sum() ** 2 / ((x * x).sum() * (y * y).sum())
        information.append(-0.5 * torch.log(1 - 0.95 * squared))
    return sum(alignment) / channels + beta * KAPPA * sum(information) / channels


def spans(old: int, new: int) -> list[range]:
    """Return the positions that each result of adaptive pooling averages along one axis."""
    return [range(i * old // new, -(-(i + 1) * old // new)) for i in range(new)]


def pooled(pairs: Tensor, size: tuple[int, int], small: tuple[int, int]) -> Tensor:
    """R11: average (L, L) pairs over the blocks of queries and of keys."""
    blocks = [
        torch.tensor([y * size[1] + x for y in rows for x in columns])
        for rows in spans(size[0], small[0])
        for columns in spans(size[1], small[1])
    ]
    return torch.stack(
        [torch.stack([pairs[query][:, key].mean() for key in blocks]) for query in blocks]
    )


def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return a and 1 - a of logits; computed apart, because a rounds to 1."""
    return 1 / (1 + torch.exp(-logits)), 1 / (1 + torch.exp(logits))


def cross_entropy(logits: Tensor, labels: list) -> Tensor:
    """BCE_b of R9: both signs weigh one half; counts plus 1, as in L_aff."""
    total, count = [torch.zeros((), dtype=torch.float64) for _ in range(2)], [0, 0]
    for one, label in zip(logits, labels, strict=True):
        for sign, value in zip((1, 0), probabilities(one), strict=True):
            chosen = torch.from_numpy(label == sign)
            total[sign] = total[sign] - torch.log(value)[chosen].sum()
            count[sign] += int(chosen.sum())
    return 0.5 * sum(part / (number + 1) for part, number in zip(total, count, strict=True))


def contrast(logits: Tensor, labels: list) -> Tensor:
    """R12: pairs of one class are pulled to 1, pairs of different classes to 0."""
    total, count = [torch.zeros((), dtype=torch.float64) for _ in range(2)], [0, 0]
    for one, label in zip(logits, labels, strict=True):
        a, rest = probabilities(one)
        for sign, value in ((1, rest), (0, a)):
            chosen = torch.from_numpy(label == sign)
            total[sign] = total[sign] + value[chosen].sum()
            count[sign] += int(chosen.sum())
    return 0.5 * sum(part / (number + 1) for part, number in zip(total, count, strict=True))


def divergence(p: tuple[Tensor, Tensor], q: tuple[Tensor, Tensor]) -> Tensor:
    """KL of Bernoulli variables, with p as a fixed target."""
    parts = [
        one.detach() * (torch.log(one.detach()) - torch.log(other))
        for one, other in zip(p, q, strict=True)
    ]
    return parts[0] + parts[1]


def apml(
    logits: Tensor,
    small_logits: Tensor,
    labels: list,
    grids: tuple[tuple[int, int], tuple[int, int]],
    radii: tuple[int, int],
    beta: float,
) -> Tensor:
    """Eq. 14 with R9 (`vd`), R11 and R12; `labels` are the (H, W) pseudo-labels of the images."""
    pairs, small_pairs = (
        [afa_oracle.affinity_label(label, grid, radius) for label in labels]
        for grid, radius in zip(grids, radii, strict=True)
    )
    agreement, count = torch.zeros((), dtype=torch.float64), 0
    for one, other, pair in zip(logits, small_logits, pairs, strict=True):
        mean = tuple(pooled(part, *grids) for part in probabilities(one))
        small = probabilities(other)
        throughout = pooled(torch.from_numpy(pair != IGNORE).double(), *grids) > 1 - 1e-9
        agreement = (
            agreement + (divergence(mean, small) + divergence(small, mean))[throughout].sum()
        )
        count += int(throughout.sum())
    label_term = cross_entropy(logits, pairs) + cross_entropy(small_logits, small_pairs)
    information = 0.5 * label_term + 0.5 * agreement / max(count, 1)
    return contrast(logits, pairs) + beta * KAPPA * information
