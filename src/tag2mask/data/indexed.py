"""What sources with files have in common: images, tags and masks out of one survey."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tag2mask.data import base
from tag2mask.data.index import DatasetIndex
from tag2mask.data.tags import reject_empty_classes, resolve_classes, tag_matrix
from tag2mask.errors import DataError
from tag2mask.types import Sample


class IndexedDataset(base.Source):  # by its module's name: it is no source that a recipe could name
    """A source that a survey of the disk is enough for; its constructor ends with `_hold`."""

    _dataset_index: DatasetIndex

    def _hold(
        self,
        dataset_index: DatasetIndex,
        class_names: tuple[str, ...],
        names: Iterable[str],
        *,
        learned: bool,
        strict: bool,
    ) -> None:
        """Keep some of the surveyed images.

        Args:
            dataset_index: Without faults.
            class_names: Foreground classes in the order of mask values.
            names: The images of this part; those that cannot be read are left out.
            learned: Whether they are learned from, so that every class needs an image.
            strict: Refuse unreadable images instead.

        Raises:
            DataError: If an image (`strict`) or a class without image (`learned`) is refused.
        """
        self._dataset_index = dataset_index
        self.class_names = class_names
        self.names, self.skipped = dataset_index.readable(names, strict=strict)
        self.tags = tag_matrix((dataset_index.tags[name] for name in self.names), class_names)
        if learned:
            reject_empty_classes(self.tags, class_names, dataset_index.where)
        self.has_masks = dataset_index.has_masks(self.names)

    def __getitem__(self, index: int) -> Sample:
        with_mask = self.has_masks and self.reads_masks
        return self._dataset_index.sample(
            self.names[index], self.tags[index], self.class_names, with_mask=with_mask
        )


def resolve_known_classes(
    chosen: Sequence[str], dataset_index: DatasetIndex, training: Callable[[], DatasetIndex]
) -> tuple[str, ...]:
    """Choose among classes that the data names in an order of its own.

    Args:
        chosen: What the user wants; empty: every class that the images to learn from show.
        dataset_index: The images at hand.
        training: Surveys the images to learn from; called only where it decides.

    Raises:
        DataError: If a chosen class is unknown.
    """
    if chosen:
        return resolve_classes(chosen, dataset_index.mask_classes, dataset_index.where)
    learned = training()
    shown = set(learned.shown)
    return resolve_classes(
        (), [name for name in learned.mask_classes if name in shown], learned.where
    )


def existing_root(root: Path | None) -> Path:
    """Return the folder that `data.root` names.

    Raises:
        DataError: If it is not set or missing.
    """
    if root is None:
        raise DataError("data.root is not set: add --data.root DIR")
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (data.root)")
    return root
