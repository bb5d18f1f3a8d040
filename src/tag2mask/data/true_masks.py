"""Images to train on where some have true masks: which images, which masks, which ones often.

`data.true_masks: train` lets a method learn from the true masks of the training images. A method
that learns from masks alone takes the pseudo-labels of `data.labels` for all other images or,
without them, leaves those images out. Any other method keeps all images for their tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data import base
from tag2mask.data.index import count
from tag2mask.data.pseudo_labels import PseudoLabelDataset
from tag2mask.errors import DataError
from tag2mask.types import Sample


class TrainingImages(NamedTuple):
    """The images of a training run."""

    source: base.Source
    reads_masks: bool
    """Whether batches contain masks."""
    true_masks: Sequence[int] = ()
    """Indices of the images whose true mask is learned; every batch has some of them."""

    @property
    def unused_masks(self) -> int:
        """Number of true masks that are not learned, although some images have one."""
        return 0 if self.true_masks or self.reads_masks else len(self.source.masked)


class MaskedImages(base.Source):  # not a direct `Source` subclass: recipes cannot name it
    """The images of a source that have a true mask.

    Args:
        source: Images, tags and some masks; not changed.
    """

    def __init__(self, source: base.Source) -> None:
        self._source = source
        self._kept = list(source.mask_indices)
        self.class_names = source.class_names
        self.names = tuple(source.names[index] for index in self._kept)
        self.tags = source.tags[self._kept]
        self.has_masks = True
        self.skipped = source.skipped

    def __getitem__(self, index: int) -> Sample:
        return _with_mask_if(self._source[self._kept[index]], self.reads_masks)


class TrueOrPseudoMasks(base.Source):  # not a direct `Source` subclass: recipes cannot name it
    """Images with their true mask if they have one, else with their pseudo-label.

    Args:
        source: Images, tags and some true masks; not changed.
        labeled: The same images with pseudo-labels.
    """

    def __init__(self, source: base.Source, labeled: PseudoLabelDataset) -> None:
        self._source = source
        self._labeled = labeled
        own = {source.names[index]: index for index in source.mask_indices}
        self._own = {at: own[name] for at, name in enumerate(labeled.names) if name in own}
        self.class_names, self.names, self.tags = labeled.class_names, labeled.names, labeled.tags
        self.has_masks = True
        self.skipped = labeled.skipped

    @property
    def true_masks(self) -> Sequence[int]:
        """Indices of the images with a true mask."""
        return tuple(self._own)

    def __getitem__(self, index: int) -> Sample:
        own = self._own.get(index)
        sample = self._labeled[index] if own is None else self._source[own]
        return _with_mask_if(sample, self.reads_masks)


def open_training_images(config: DataConfig, *, learns_from_masks: bool) -> TrainingImages:
    """Open the images of a training run.

    Args:
        config: Names the source, and says how true masks and pseudo-labels are used.
        learns_from_masks: Whether the method learns from the mask of every image.

    Raises:
        DataError: If the data or the pseudo-labels cannot be used, or masks are missing.
    """
    source: base.Source = plugins.load("data", config.name)(config, "train")
    learned = config.true_masks == "train"
    if learned and not source.mask_indices:
        raise DataError(
            f"data.true_masks: none of the {count(len(source), 'training image')} has a true mask; "
            "add masks (docs: your own data), or remove the key"
        )
    if learned and not learns_from_masks:
        return TrainingImages(source, True, source.mask_indices)
    if config.labels is None:
        if learns_from_masks and not source.has_masks:
            return TrainingImages(_only_masked(source, learned), True)
        return TrainingImages(source, learns_from_masks)
    labeled = PseudoLabelDataset(source, config.labels)
    if not learned:
        return TrainingImages(labeled, learns_from_masks)
    mixed = TrueOrPseudoMasks(source, labeled)
    return TrainingImages(mixed, True, mixed.true_masks)


def _only_masked(source: base.Source, learned: bool) -> base.Source:
    """Return the images with masks, for a method that learns from nothing else.

    Raises:
        DataError: If nobody has asked for it, which would leave out images in silence.
    """
    if learned:
        return MaskedImages(source)
    masked = len(source.mask_indices)
    others = f", or data.true_masks=train to learn from {masked} of {len(source)}" if masked else ""
    raise DataError(
        "this method learns from masks, but not every image has one; set data.labels to a folder "
        f"that 'tag2mask label' wrote{others}"
    )


def _with_mask_if(sample: Sample, reads_masks: bool) -> Sample:
    return sample if reads_masks else replace(sample, mask=None)
