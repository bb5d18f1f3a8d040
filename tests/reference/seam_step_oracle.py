"""One step of SEAM, plane by plane, from Specification 4.2; slow.

As the method's "Departs" says, maps are normalized on the network's grid.
"""

from dataclasses import dataclass

import torch
from tests.reference.step_network import multi_label, resize
from torch import Tensor

EPS = 1e-5
ECR_SHARE, MIN_POOLING_SHARE = 0.2, 0.25


@dataclass
class View:
    """What the network gives for one image of one view."""

    cam: Tensor
    """(F, h, w) signed."""
    refined: Tensor
    """(1 + F, h, w) of PCM, background first."""


def max_norm(plane: Tensor) -> Tensor:
    positive = torch.relu(plane)
    span = positive.max() - positive.min() + EPS
    return torch.relu(positive - positive.min() - EPS) / span


def one_hot_max(planes: Tensor) -> Tensor:
    """Background 1 - max, then each class where it is the strongest, else 0."""
    largest = planes.max(dim=0).values
    kept = [torch.where(plane >= largest, plane, torch.zeros_like(plane)) for plane in planes]
    return torch.stack([1 - largest, *kept])


def pcm(
    image: Tensor, early: list[Tensor], cam: Tensor, reduce: list[Tensor], mix: Tensor
) -> Tensor:
    """Average the CAM over pixels with similar colors and early features.

    Args:
        image: (3, H, W).
        early: f2 and f3, (D, h, w) each.
        cam: (F, h, w) signed.
        reduce: Kernels of the reducing convolutions.
        mix: Kernel of the mixing one.
    """
    size = cam.shape[1:]
    parts = [torch.stack([resize(plane, size, aligned=True) for plane in image])]
    for features, kernel in zip(early, reduce, strict=True):
        parts.append(torch.relu(torch.einsum("od,dhw->ohw", kernel, features.detach())))
    f = torch.einsum("od,dhw->ohw", mix, torch.cat(parts)).flatten(1)
    f = f / (f.norm(dim=0, keepdim=True) + EPS)
    similar = torch.relu(f.T @ f)
    similar = similar / (similar.sum(dim=0, keepdim=True) + EPS)
    source = cam.detach()
    source = torch.stack([torch.relu(plane) / (torch.relu(plane).max() + EPS) for plane in source])
    return (one_hot_max(source).flatten(1) @ similar).reshape(-1, *size)


def min_pooling(maps: Tensor, tags: list[float]) -> Tensor:
    """Mean of the lowest quarter of the pixels of max over classes."""
    present = torch.stack([plane * tag for plane, tag in zip(maps, tags, strict=True)])
    pixels = present.max(dim=0).values.flatten().sort().values
    return torch.relu(pixels[: int(len(pixels) * MIN_POOLING_SHARE)]).mean()


def top_difference(target: Tensor, refined: Tensor) -> Tensor:
    values = (target - refined).abs().flatten().sort(descending=True).values
    return values[: int(len(values) * ECR_SHARE)].mean()


def losses(
    large: list[View], small: list[View], tags: Tensor, grid: tuple[int, int]
) -> dict[str, Tensor]:
    """The losses of a step over the images of both views.

    Args:
        large: Of the crop.
        small: Of A(crop).
        tags: (N, F).
        grid: (h, w) of the small view in pixels, on which maps are compared.
    """
    classification = [
        multi_label(torch.stack([view.cam.mean(dim=(1, 2)) for view in views]), tags)
        for views in (large, small)
    ]
    lowest = [
        torch.stack(
            [
                min_pooling(view.refined[1:], row)
                for view, row in zip(views, tags.tolist(), strict=True)
            ]
        ).mean()
        for views in (large, small)
    ]
    differences, cross = [], []
    for one, other, row in zip(large, small, tags.tolist(), strict=True):
        a_m, m_small = (tagged(view.cam, row, grid) for view in (one, other))
        differences.append((a_m - m_small).abs().flatten())
        a_pcm, pcm_small = (tagged(view.refined, [1.0, *row], grid) for view in (one, other))
        cross.append(
            top_difference(one_hot_max(m_small.detach()), a_pcm)
            + top_difference(one_hot_max(a_m.detach()), pcm_small)
        )
    return {
        "classification": sum(classification) / 2,
        "min_pooling": sum(lowest) / 2,
        "er": torch.cat(differences).mean(),
        "ecr": sum(cross) / len(cross),
    }


def tagged(planes: Tensor, tags: list[float], grid: tuple[int, int]) -> Tensor:
    """Normalize planes, resize them with aligned corners, and set absent classes to 0."""
    return torch.stack(
        [
            tag * resize(max_norm(plane), grid, aligned=True)
            for plane, tag in zip(planes, tags, strict=True)
        ]
    )
