"""Ultralytics `semantic` data set: images, gray masks of class indices, data.yaml."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tag2mask.errors import DataError
from tag2mask.formats import dataset_folder
from tag2mask.formats.base import Format, MaskCollection, NamedMask, ReadMasks
from tag2mask.io.masks import read_mask
from tag2mask.types import BACKGROUND

NAME = "ultralytics_semantic"
MASKS = "masks"
NOTE = "yolo semantic train data=data.yaml model=yolo26n-sem.pt; 255 is ignored"


class UltralyticsSemantic(Format):
    """A folder that `yolo semantic train` reads; background is class 0, 255 is ignore.

    Source:
        docs.ultralytics.com/datasets/semantic, PNG mask format.
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Copy the images and write a single-channel PNG for each."""
        for image in masks:
            dataset_folder.copy_image(image, out, NAME)
            path = dataset_folder.label_path(image, out, MASKS, ".png")
            image.save_gray_mask(path)
        names = dict(enumerate(("background", *masks.class_names)))
        dataset_folder.write_data_file(out, names, NOTE, MASKS)

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read a folder with `data.yaml` whose class 0 is background."""
        content = dataset_folder.read_data_file(path)
        background, *class_names = content["names"]
        if background != "background":
            raise DataError(
                f"{path / dataset_folder.DATA_FILE}: class {BACKGROUND} is '{background}', but "
                "must be 'background'; renumber the masks"
            )
        labels = str(content.get("masks_dir", MASKS))

        def read() -> Iterator[NamedMask]:
            for label in dataset_folder.find_labels(path, labels, ".png"):
                yield NamedMask(label.name, read_mask(label.path, len(class_names)))

        return ReadMasks(tuple(class_names), read())
