"""The common base of data sources with files: a dataset index and a selection from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tag2mask.config.schema import DataConfig
from tag2mask.data import base
from tag2mask.data.index import DatasetIndex
from tag2mask.data.tags import reject_empty_classes, resolve_classes, tag_matrix
from tag2mask.errors import DataError
from tag2mask.io.depth import ValueRange
from tag2mask.types import Sample


class IndexedDataset(base.Source):  # not a direct `Source` subclass: recipes cannot name it
    """A source whose images, tags and masks come from a `DatasetIndex`.

    The constructor of a subclass builds the index and ends with `_hold`.
    """

    _dataset_index: DatasetIndex
    _value_range: ValueRange | None

    def _hold(
        self,
        dataset_index: DatasetIndex,
        class_names: tuple[str, ...],
        names: Iterable[str],
        *,
        learned: bool,
        config: DataConfig,
    ) -> None:
        """Select images of the index as the samples of this source.

        Args:
            dataset_index: Without problems.
            class_names: Foreground classes in the order of mask values.
            names: Images of this part; unreadable ones are left out.
            learned: Whether the images are used for training, so that every class needs an image.
            config: Whether unreadable images are rejected, and the range of 16-bit images.

        Raises:
            DataError: If an image is unreadable and `data.strict` is set, or a class has no image
                (`learned`).
        """
        self._dataset_index = dataset_index
        self._value_range = config.value_range
        self.class_names = class_names
        self.names, self.skipped = dataset_index.readable(names, strict=config.strict)
        self.tags = tag_matrix((dataset_index.tags[name] for name in self.names), class_names)
        written = Counter(tag for name in self.names for tag in dataset_index.tags[name])
        self.unknown_tags = {tag: n for tag, n in written.items() if tag not in class_names}
        if learned:
            reject_empty_classes(self.tags, class_names, dataset_index.where)
        self.has_masks = dataset_index.has_masks(self.names)
        self.masked = () if self.has_masks else dataset_index.masked(self.names)
        self.image_files = dataset_index.images

    def __getitem__(self, index: int) -> Sample:
        name = self.names[index]
        with_mask = self.reads_masks and name in self._dataset_index.masks
        return self._dataset_index.sample(
            name,
            self.tags[index],
            self.class_names,
            with_mask=with_mask,
            value_range=self._value_range,
        )


def resolve_known_classes(
    chosen: Sequence[str], dataset_index: DatasetIndex, training: Callable[[], DatasetIndex]
) -> tuple[str, ...]:
    """Resolve the classes of a data set that defines their order itself.

    Args:
        chosen: Classes in the recipe; empty: every class that the training images show.
        dataset_index: Images of the current part.
        training: Builds the index of the training images; called only if `chosen` is empty.

    Raises:
        DataError: If a chosen class is unknown.
    """
    if chosen:
        return resolve_classes(chosen, dataset_index.mask_classes, dataset_index.where)
    training_index = training()
    tagged = set(training_index.tag_names)
    return resolve_classes(
        (), [name for name in training_index.mask_classes if name in tagged], training_index.where
    )


def existing_root(root: Path | None) -> Path:
    """Return the folder that `data.root` names.

    Raises:
        DataError: If it is not set or missing.
    """
    if root is None:
        raise DataError("data.root is not set; add data.root=DIR")
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (data.root)")
    return root
