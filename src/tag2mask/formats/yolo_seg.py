"""YOLO segmentation data set: images, polygons in text files, data.yaml; for `yolo segment`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tag2mask.data.index import name_images
from tag2mask.errors import DataError
from tag2mask.formats import dataset_folder
from tag2mask.formats.base import Format, MaskCollection, MaskedImage, NamedMask, ReadMasks
from tag2mask.formats.contours import Pixels, draw_ring, merge_holes, trace_parts
from tag2mask.io.images import image_size
from tag2mask.io.text_files import read_text
from tag2mask.types import Mask

NAME = "yolo_seg"
LABELS = "labels"
NOTE = "a polygon is a connected part, not an object."
FEWEST_NUMBERS = 6
"""Coordinates of a triangle."""


class YOLOSeg(Format):
    """A folder that `yolo segment train` reads; a hole is joined to the outline by a cut.

    Source:
        docs.ultralytics.com/datasets/segment, Ultralytics YOLO format.
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Copy the images and write a text file for each, empty for an image without objects."""
        for image in masks:
            dataset_folder.copy_image(image, out, NAME)
            path = dataset_folder.label_path(image, out, LABELS, ".txt")
            lines = _polygons(image, len(masks.class_names))
            path.write_text("".join(lines), encoding="utf-8")
        note = f"Pixels outside all polygons are {masks.unlabeled}; {NOTE}"
        dataset_folder.write_data_file(out, dict(enumerate(masks.class_names)), note)

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read a folder with `data.yaml`; where polygons overlap, the smaller one counts."""
        class_names = tuple(dataset_folder.read_data_file(path)["names"])
        others = {} if images is None else name_images(images)[0]

        def read() -> Iterator[NamedMask]:
            for label in dataset_folder.find_labels(path, LABELS, ".txt"):
                image = others.get(label.name, label.image)
                if image is None:
                    raise DataError(
                        f"{label.path}: there is no image to read its size from; give the folder "
                        "of the images: --images DIR"
                    )
                yield NamedMask(label.name, _draw(label.path, image_size(image), class_names))

        return ReadMasks(class_names, read())


def _polygons(image: MaskedImage, num_foreground: int) -> Iterator[str]:
    """Yield a line for each connected part: class index, then x and y in [0, 1]."""
    mask = image.load()
    for value in range(1, num_foreground + 1):
        for part in trace_parts(mask == value):
            corners = merge_holes(part) / (image.width, image.height)
            yield f"{value - 1} {' '.join(f'{number:.7g}' for number in corners.ravel())}\n"


def _draw(path: Path, size: tuple[int, int], class_names: Sequence[str]) -> Mask:
    """Draw the polygons of a label file, the largest first.

    Raises:
        DataError: Naming the line that is faulty.
    """
    shapes: list[tuple[Pixels, int]] = []
    lines = read_text(path, DataError).splitlines()
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            index, *numbers = map(float, line.split())
        except ValueError as error:
            raise DataError(f"{path} line {number}: is not a list of numbers") from error
        if not (index.is_integer() and 0 <= index < len(class_names)):
            raise DataError(
                f"{path} line {number}: class {index:g} has no name; data.yaml names 0 to "
                f"{len(class_names) - 1}"
            )
        if len(numbers) < FEWEST_NUMBERS or len(numbers) % 2:
            raise DataError(
                f"{path} line {number}: has {len(numbers)} coordinates after the class; a polygon "
                f"has an even number from {FEWEST_NUMBERS} on (4 make a box, which has no mask)"
            )
        corners = np.array(numbers).reshape(-1, 2)
        if not (np.isfinite(corners).all() and -0.01 <= corners.min() <= corners.max() <= 1.01):
            raise DataError(f"{path} line {number}: coordinates must be fractions from 0 to 1")
        height, width = size
        shapes.append((draw_ring(corners.clip(0, 1) * (width, height), size), int(index)))
    mask = np.zeros(size, dtype=np.uint8)
    for inside, index in sorted(shapes, key=lambda shape: -int(shape[0].sum())):
        mask[inside] = index + 1
    return mask
