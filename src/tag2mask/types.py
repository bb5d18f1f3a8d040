"""The values that cross borders between packages: Sample, Batch, Prediction, Report.

Axes: N batch, F foreground classes, C = F + 1 classes with background, H before W. Mask values: 0
is background, 1..F are the recipe's classes in order, 255 is ignore; always.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tag2mask.io.palette import colorize

if TYPE_CHECKING:  # torch costs a second of start-up that `tag2mask --help` must not pay
    import torch
    from torch import Tensor

BACKGROUND = 0
IGNORE = 255

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, upright (EXIF orientation applied)."""
Mask = npt.NDArray[np.uint8]
"""(H, W) uint8 class indices; 0 background, 255 ignore."""
ClassSource = Literal["classifier", "tags"]
"""Who chooses the classes of a mask: the classifier, or the true tags."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a data source delivers it, before augmentation."""

    name: str
    """Unique within its source; file name without suffix, folders kept (`lane1/cow`)."""
    image: Image
    tags: npt.NDArray[np.uint8]
    """(F,) in {0, 1}."""
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a method trains on. No tensor is built that the method does not read."""

    image: Tensor
    """(N, 3, H, W) uint8 RGB; methods normalize on the device, so refiners read true colors."""
    tags: Tensor
    """(N, F) float32 in {0, 1}."""
    valid: Tensor
    """(N, H, W) bool; False on crop padding."""
    name: Sequence[str]
    mask: Tensor | None = None
    """(N, H, W) int64 pseudo-labels or true masks, or None."""
    max_tags: int = 1
    """Largest number of tags of one image, counted on the host: asking the device would wait."""

    def to(self, device: torch.device) -> Batch:
        """Copy every tensor to `device`, without waiting where the memory is pinned."""
        moved: dict[str, Any] = {
            "image": self.image.to(device, non_blocking=True),
            "tags": self.tags.to(device, non_blocking=True),
            "valid": self.valid.to(device, non_blocking=True),
        }
        if self.mask is not None:
            moved["mask"] = self.mask.to(device, non_blocking=True)
        return replace(self, **moved)


class DatasetView(Protocol):
    """The images of a labeling run, for methods that look at others while they label one."""

    @property
    def names(self) -> Sequence[str]:
        """Unique."""

    @property
    def tags(self) -> npt.NDArray[np.uint8]:
        """(len(names), F) in {0, 1}."""

    def image(self, index: int) -> Tensor:
        """(3, H, W) uint8 RGB; raises DataError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The masks of one image, at the image's own size."""

    mask: Mask
    class_names: tuple[str, ...]
    """Foreground names in order; mask value k is `class_names[k - 1]`."""
    scores: Mapping[str, float]
    """Class probability of each name from the classifier, whatever the gate."""
    class_source: ClassSource
    image: Image = field(repr=False)
    cam: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(F, h, w) normalized evidence in [0, 1], 0 for gated-out classes; None if not asked for."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that own at least one pixel."""
        present = np.unique(self.mask)
        return tuple(self.class_names[k - 1] for k in present if k not in (BACKGROUND, IGNORE))

    def overlay(self, opacity: float = 0.5) -> Image:
        """Return the image with its mask in palette colors; background stays as photographed."""
        painted = colorize(self.mask)
        share = np.where((self.mask != BACKGROUND) & (self.mask != IGNORE), opacity, 0.0)[..., None]
        blend: Image = (self.image * (1 - share) + painted * share).round().astype(np.uint8)
        return blend


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of one set of masks, with everything one must know to compare them."""

    class_names: tuple[str, ...]
    """Foreground names; `iou` has background first."""
    iou: tuple[float, ...]
    """(C,) in [0, 1]; NaN for a class that neither truth nor prediction holds."""
    miou: float
    """Mean of `iou` over classes with true pixels."""
    images: int
    class_source: ClassSource | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Split, scales, flip, refiner, CRF, threshold: how the masks were made."""
