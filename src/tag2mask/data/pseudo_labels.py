"""Images of a data source with masks from another folder: the pseudo-labels of an earlier stage."""

from __future__ import annotations

import copy
from pathlib import Path

from tag2mask.data import base
from tag2mask.data.index import count, find_masks
from tag2mask.data.tags import name_some
from tag2mask.errors import DataError
from tag2mask.io.mask_folder import CLASSES_FILE, read_class_names, read_skipped
from tag2mask.io.masks import read_mask, renumber
from tag2mask.types import Sample


class PseudoLabelDataset(
    base.Source
):  # by its module's name: recipes name the source, not this wrapper
    """A source whose masks are the indexed PNG files that `tag2mask label` wrote.

    Names, tags and images are the source's own, without those that could not be read when the masks
    were written. A mask is decoded only where masks are asked for; the source's own masks never
    are.

    Args:
        source: The images; not changed.
        folder: `NAME.png` for each image, and `classes.json` with the class of every mask value.

    Raises:
        DataError: If the folder has other classes than the source, or lacks an image's mask.
    """

    def __init__(self, source: base.Source, folder: Path) -> None:
        folder = folder.expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (data.labels)")
        classes = read_class_names(folder)
        if not classes:
            raise DataError(
                f"{folder}: holds no {CLASSES_FILE}; data.labels is a folder that "
                "'tag2mask label' wrote"
            )
        if set(classes) != set(source.class_names):
            raise DataError(
                f"{folder / CLASSES_FILE}: has the classes {', '.join(classes)}, but "
                f"{', '.join(source.class_names)} are to be learned"
            )
        masks = find_masks(folder)
        skipped = read_skipped(folder) - masks.keys()
        kept = [place for place, name in enumerate(source.names) if name not in skipped]
        missing = [source.names[place] for place in kept if source.names[place] not in masks]
        if missing:
            raise DataError(
                f"{folder}: {count(len(missing), 'image')} without mask: {name_some(missing)}; "
                "label them with 'tag2mask label'"
            )
        self._source = copy.copy(source)
        self._source.reads_masks = False
        self._kept = kept
        self.names = tuple(source.names[place] for place in kept)
        self._masks = {name: masks[name] for name in self.names}
        self._values = renumber(classes, source.class_names)
        self.class_names = source.class_names
        self.tags = source.tags[kept]
        self.skipped = (*source.skipped, *(name for name in source.names if name in skipped))
        self.has_masks = True

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[self._kept[index]]
        if not self.reads_masks:
            return Sample(sample.name, sample.image, sample.tags)
        height, width = sample.image.shape[:2]
        mask = read_mask(self._masks[sample.name], len(self.class_names), (height, width))
        return Sample(sample.name, sample.image, sample.tags, self._values[mask])
