"""One embedding per class of a batch, and how alike the classes are."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn import functional as F

from tag2mask.functional.reduction import sum_over_ranks

PrototypeKind = Literal["features", "cam_grid"]
GRID = 4
"""Side of the pooled map in the `cam_grid` variant."""


def class_prototypes(
    cam: Tensor, features: Tensor, tags: Tensor, kind: PrototypeKind = "features", eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Form one prototype per class from all images of the batch that show it.

    Args:
        cam: (N, F, h, w) in [0, 1]; gradient flows through it.
        features: (N, D, h, w) on the same grid.
        tags: (N, F) in {0, 1}.
        kind: features: mean of the features, weighted by the map. cam_grid: the map pooled to 4 x
            4, which pushes classes to different places rather than to different looks.
        eps: Keeps an empty map finite.

    Returns:
        (F, D) prototypes, or (F, 16); and (F,) float, 1 for classes that some image of the batch
        shows.

    Source:
        RML, Eq. 3 with Specification R4: pooling a map to one number, as released, makes
        every cosine 1; and most images show one class only, so classes are paired over the batch.
    """
    if kind == "features":
        mass = cam.flatten(2).sum(dim=2, keepdim=True) + eps
        tokens = features.flatten(2).transpose(1, 2).to(cam.dtype)
        pooled = cam.flatten(2) @ tokens / mass  # (N, F, D)
    else:
        pooled = F.adaptive_avg_pool2d(cam, GRID).flatten(2)
    count = sum_over_ranks(tags.sum(dim=0))
    total = sum_over_ranks((pooled * tags[:, :, None]).sum(dim=0))
    return total / count.clamp_min(1)[:, None], (count > 0).to(tags.dtype)


def mean_similarity(prototype: Tensor, present: Tensor) -> Tensor:
    """Mean positive cosine between different present classes.

    Args:
        prototype: (F, D).
        present: (F,) in {0, 1}.

    Returns:
        Scalar in [0, 1]; 0 if fewer than two classes are present.

    Source:
        RML, Eq. 4 with Specification R5: a class against itself is left out, and unlike
        classes are not pushed further than a right angle.
    """
    unit = F.normalize(prototype, dim=1)
    pairs = present[:, None] * present[None, :]
    pairs = pairs - pairs.diagonal().diag()
    return ((unit @ unit.T).relu() * pairs).sum() / pairs.sum().clamp_min(1)
