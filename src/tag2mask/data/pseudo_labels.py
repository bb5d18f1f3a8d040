"""Images of a data source with masks of another folder: the pseudo-labels of an earlier stage."""

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


class PseudoLabelDataset(base.Source):  # not a direct `Source` subclass: recipes cannot name it
    """A source whose masks are the indexed PNG files that `tag2mask label` wrote.

    Names, tags and images come from `source`, without images that could not be read when the masks
    were written. Masks are decoded only if needed; the source's own masks never are.

    Args:
        source: Images and tags; not changed.
        folder: `NAME.png` for each image, and `classes.json` with the class of every mask value.

    Raises:
        DataError: If the folder has other classes than the source, or the mask of an image is
            missing.
    """

    def __init__(self, source: base.Source, folder: Path) -> None:
        folder = folder.expanduser()
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder (data.labels)")
        classes = read_class_names(folder)
        if not classes:
            raise DataError(
                f"{folder}: there is no {CLASSES_FILE}; set data.labels to a folder that "
                "'tag2mask label' wrote"
            )
        if set(classes) != set(source.class_names):
            raise DataError(
                f"{folder / CLASSES_FILE}: the masks have the classes {', '.join(classes)}, but "
                f"the recipe learns {', '.join(source.class_names)}; make both equal (data.classes)"
            )
        masks = find_masks(folder)
        skipped = read_skipped(folder) - masks.keys()
        labeled = [index for index, name in enumerate(source.names) if name not in skipped]
        missing = [source.names[index] for index in labeled if source.names[index] not in masks]
        if missing:
            raise DataError(
                f"{folder}: {count(len(missing), 'image')} without mask: {name_some(missing)}; "
                "label them with 'tag2mask label'"
            )
        self._source = copy.copy(source)
        self._source.reads_masks = False
        self._labeled = labeled
        self.names = tuple(source.names[index] for index in labeled)
        self._masks = {name: masks[name] for name in self.names}
        self._renumbered = renumber(classes, source.class_names)
        self.class_names = source.class_names
        self.tags = source.tags[labeled]
        self.skipped = (*source.skipped, *(name for name in source.names if name in skipped))
        self.has_masks = True

    def __getitem__(self, index: int) -> Sample:
        sample = self._source[self._labeled[index]]
        if not self.reads_masks:
            return Sample(sample.name, sample.image, sample.tags)
        height, width = sample.image.shape[:2]
        mask = read_mask(self._masks[sample.name], len(self.class_names), (height, width))
        return Sample(sample.name, sample.image, sample.tags, self._renumbered[mask])
