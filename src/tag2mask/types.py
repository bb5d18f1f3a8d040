"""The values that packages exchange: Sample, Batch, Prediction, Report.

Axes: N batch, F foreground classes, C = F + 1 classes with background, H before W. Mask values are
always the same: 0 is background, 1..F are the recipe's classes in order, 255 is ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tag2mask.io.palette import colorize

if TYPE_CHECKING:  # importing torch takes a second, too long for `tag2mask --help`
    import torch
    from torch import Tensor

BACKGROUND = 0
IGNORE = 255
_OVERLAY_ROWS = 256

Image = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB, upright (EXIF orientation applied)."""
Mask = npt.NDArray[np.uint8]
"""(H, W) uint8 class indices; 0 background, 255 ignore."""
ClassSource = Literal["classifier", "tags"]
"""Where the classes of a mask come from: the classifier, or the true tags."""
SaveFormat = Literal["png", "npy", "npz", "overlay"]
"""How `Prediction.save` writes: a mask as indexed PNG or as array, all arrays, or a picture."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One image as a data source delivers it, before augmentation."""

    name: str
    """Unique within its source: the file's path without suffix (`lane1/cow`)."""
    image: Image
    tags: npt.NDArray[np.uint8]
    """(F,) in {0, 1}."""
    mask: Mask | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What a method trains on; a tensor that the method does not read is not built."""

    image: Tensor
    """(N, 3, H, W) uint8 RGB; methods normalize it on the device, refiners read the true colors."""
    tags: Tensor
    """(N, F) float32 in {0, 1}."""
    valid: Tensor
    """(N, H, W) bool; False on the padding of crops."""
    name: Sequence[str]
    mask: Tensor | None = None
    """(N, H, W) int64 pseudo-labels or true masks, or None."""
    masked_rows: Sequence[int] = ()
    """Rows of images that have a mask, known on the host; `mask` is 255 in all other rows."""
    max_tags: int = 1
    """Largest number of tags of one image, counted on the host to avoid waiting for the device."""

    def to(self, device: torch.device) -> Batch:
        """Copy every tensor to `device`, asynchronously if the memory is pinned."""
        moved: dict[str, Any] = {
            "image": self.image.to(device, non_blocking=True),
            "tags": self.tags.to(device, non_blocking=True),
            "valid": self.valid.to(device, non_blocking=True),
        }
        if self.mask is not None:
            moved["mask"] = self.mask.to(device, non_blocking=True)
        return replace(self, **moved)


class DatasetView(Protocol):
    """The images of a labeling run, for methods that compare an image with others."""

    @property
    def names(self) -> Sequence[str]:
        """Unique names of the images."""

    @property
    def tags(self) -> npt.NDArray[np.uint8]:
        """Tags of the images, (len(names), F) in {0, 1}."""

    def image(self, index: int) -> Tensor:
        """Return one image, (3, H, W) uint8 RGB; raise DataError if it cannot be read."""


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How unreliable the mask of one image probably is, estimated without its true mask."""

    total: float
    """In [0, 1]; sorts images, is not the probability of an error."""
    parts: Mapping[str, float]
    """What the total combines, each in [0, 1]; see `inference.uncertainty`."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The mask of one image, at the image's own size."""

    mask: Mask
    class_names: tuple[str, ...]
    """Foreground names in order; mask value k is `class_names[k - 1]`."""
    scores: Mapping[str, float]
    """Class probability of each name from the classifier, for both class sources."""
    class_source: ClassSource
    image: Image = field(repr=False)
    cam: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(F, h, w) normalized class activation maps in [0, 1], 0 for classes that are not selected;
    None unless requested."""
    uncertainty: Uncertainty | None = None
    name: str = ""
    """Name of the image: of a folder the path without suffix (`lane1/cow`), of a file its name
    without suffix; empty if the image was not read from a file."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that have at least one pixel."""
        present = np.unique(self.mask)
        return tuple(self.class_names[k - 1] for k in present if k not in (BACKGROUND, IGNORE))

    def overlay(self, opacity: float = 0.5) -> Image:
        """Return the image with its mask in overlay colors; background pixels do not change.

        Args:
            opacity: Share of the overlay color, in [0, 1].
        """
        overlay = self.image.copy()
        for row in range(0, len(overlay), _OVERLAY_ROWS):  # a large image in floats takes gigabytes
            band = slice(row, row + _OVERLAY_ROWS)
            mask = self.mask[band]
            shown = (mask != BACKGROUND) & (mask != IGNORE)
            mixed = overlay[band][shown] * (1 - opacity) + colorize(mask)[shown] * opacity
            overlay[band][shown] = mixed.round()
        return overlay

    def save(self, path: str | Path, format: SaveFormat | None = None) -> Path:
        """Write the prediction to a file, completely or not at all.

        `tag2mask export` writes the formats of labeling tools.

        Args:
            path: Target; its folder is created if it is missing.
            format: `png` is an indexed PNG of mask values with the VOC palette, `npy` the mask as
                (H, W) uint8 array, `npz` mask, classes, scores and CAM, `overlay` the image with
                its mask in color. None: as the suffix says; a JPEG or WebP file is an overlay.

        Returns:
            The path.

        Raises:
            DataError: If neither format nor suffix says how to write.
            RunError: If the file cannot be written.
        """
        from tag2mask.io.prediction_file import save_prediction  # it imports this module

        return save_prediction(self, Path(path), format)


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """One image of `label` or `predict` is done."""

    name: str
    """Name of the image: its path without suffix."""
    prediction: Prediction | None
    """None if the image could not be read."""
    done: int
    """Images done so far in this call, this one included."""
    total: int
    """Images of this call; those that an earlier call finished do not count."""


@dataclass(frozen=True, slots=True)
class StepProgress:
    """One optimizer step of `train` is done."""

    step: int
    """Steps done so far."""
    total: int
    """Steps of the training; of a recipe with stages, of the present stage."""
    losses: Mapping[str, float]
    """Mean losses since the last log line; empty between the steps of `run.log_every`."""


@dataclass(frozen=True, slots=True)
class SizeQuarter:
    """A quarter of all objects, ordered by true area; an object is one class in one image."""

    objects: int
    smallest_px: int
    """True area of its smallest object in pixels."""
    largest_px: int
    """True area of its largest object in pixels."""
    iou: float
    """Mean of the objects' IoU; NaN without objects."""
    area_ratio: float
    """Median of predicted area over true area; NaN without objects."""


@dataclass(frozen=True, slots=True)
class Report:
    """Scores of one set of masks, with everything needed to compare them."""

    class_names: tuple[str, ...]
    """Foreground names; `iou` has background first."""
    iou: tuple[float, ...]
    """(C,) in [0, 1]; NaN for a class without true and predicted pixels."""
    miou: float
    """Mean of `iou` over the classes with true pixels."""
    images: int
    class_source: ClassSource | None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """How the masks were made: split, scales, flip, refiner, CRF, threshold."""
    by_size: tuple[SizeQuarter, ...] = ()
    """Smallest to largest quarter of the objects; empty if they were not counted."""
    without_truth: tuple[str, ...] = ()
    """Classes without a true pixel, background included; they do not count in `miou`."""
