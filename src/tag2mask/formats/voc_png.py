"""VOC palette PNG: a folder of indexed masks with classes.json, for VOC readers and mmseg."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tag2mask.data.index import find_masks
from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, NamedMask, ReadMasks
from tag2mask.io.mask_folder import describe_classes, read_classes, write_classes
from tag2mask.io.masks import read_mask, save_mask


class VOCPNG(Format):
    """Indexed PNG masks named like their images; nothing is lost but the scores."""

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write NAME.png for each image, and `classes.json`."""
        source = masks.class_source or "corrected"
        write_classes(out, describe_classes(masks.class_names, source, masks.settings))
        for image in masks:
            path = out / f"{image.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_mask(image.load(), path)

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read a folder of masks with `classes.json`."""
        if not path.is_dir():
            raise DataError(f"{path}: is no folder; format voc_png reads a folder of PNG masks")
        class_names = tuple(read_classes(path)["classes"])

        def read() -> Iterator[NamedMask]:
            for name, mask in find_masks(path).items():
                yield NamedMask(name, read_mask(mask, len(class_names)))

        return ReadMasks(class_names, read())
