"""The losses of one step of AFA in float64, written from Specification 2.6 and 2.8; slow."""

import torch
from tests.reference import afa_oracle
from tests.reference.rml_oracle import contrast, resize
from torch import Tensor

IGNORE = 255


def segmentation(logits: Tensor, labels: list) -> Tensor:
    """2.8: half the mean cross-entropy over background plus half that over foreground."""
    total, count = [torch.zeros((), dtype=torch.float64) for _ in range(2)], [0, 0]
    for scores, label in zip(logits, labels, strict=True):
        planes = torch.stack([resize(plane, label.shape) for plane in scores])
        log_total = torch.log(torch.exp(planes).sum(dim=0))
        for value in range(len(planes)):
            chosen = torch.from_numpy(label == value)
            part = int(value != 0)
            total[part] = total[part] + (log_total - planes[value])[chosen].sum()
            count[part] += int(chosen.sum())
    return sum(0.5 * part / number for part, number in zip(total, count, strict=True) if number)


def affinity(logits: Tensor, labels: list, grid: tuple[int, int], radius: int) -> Tensor:
    """2.6: linear, both signs weigh one half, counts over the batch plus 1."""
    return contrast(logits, [afa_oracle.affinity_label(label, grid, radius) for label in labels])


def learned_affinity(blocks: list, weight: Tensor, bias: Tensor) -> Tensor:
    """2.1: (L, L) of one image; S + S^T of every head, weighted, then the logistic function."""
    total, head = bias, 0
    for query, key in blocks:
        for q, k in zip(query, key, strict=True):
            score = q @ k.T
            total = total + weight[head] * (score + score.T)
            head += 1
    return 1 / (1 + torch.exp(-total))
