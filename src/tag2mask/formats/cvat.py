"""CVAT "Segmentation mask 1.1": a zip with colored masks, one object per connected part."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image as PILImage

from tag2mask.data.index import name_images
from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, NamedMask, ReadMasks
from tag2mask.formats.contours import draw_part, signed_area, trace_parts
from tag2mask.io.images import PILLOW_ERRORS, image_size, one_line
from tag2mask.io.palette import voc_palette
from tag2mask.io.zip_files import open_zip, read_member, read_text_member
from tag2mask.types import BACKGROUND, IGNORE, Mask

LABEL_MAP = "labelmap.txt"
IMAGE_LIST = "ImageSets/Segmentation/default.txt"
CLASS_MASKS = "SegmentationClass"
OBJECT_MASKS = "SegmentationObject"
BACKGROUND_NAME = "background"
MOST_OBJECTS = 255
"""Colors of the VOC palette besides black, one for each object of an image."""
EXPORT = "export 'Segmentation mask 1.1' from CVAT"
LIGHTEST = 255
Color = tuple[int, int, int]


class CVAT(Format):
    """A zip for CVAT's "Upload annotations"; scores are lost, ignored pixels become background.

    Source:
        docs.cvat.ai, Segmentation Mask format.
    """

    suffix: ClassVar[str] = ".zip"

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write label map, image list, and masks by class and by object."""
        for name in masks.class_names:
            if ":" in name or name.startswith("#") or name == BACKGROUND_NAME:
                raise DataError(f"class '{name}': CVAT's {LABEL_MAP} cannot express this name")
        labels = zip((BACKGROUND_NAME, *masks.class_names), masks.palette, strict=True)
        lines = [f"{name}:{r},{g},{b}::\n" for name, (r, g, b) in labels]
        colors = np.zeros((256, 3), dtype=np.uint8)
        colors[: len(masks.palette)] = masks.palette
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(LABEL_MAP, f"# label:color_rgb:parts:actions\n{''.join(lines)}")
            archive.writestr(IMAGE_LIST, "".join(f"{image.name}\n" for image in masks))
            for image in masks:
                mask = image.load()
                objects = number_objects(mask, len(masks.class_names))
                archive.writestr(f"{CLASS_MASKS}/{image.name}.png", _png(colors[mask]))
                archive.writestr(f"{OBJECT_MASKS}/{image.name}.png", _png(voc_palette()[objects]))

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read the zip of CVAT's "Export task dataset".

        An image of the list without a mask shows no class; its size comes from `images`, and
        without that folder it is left out.
        """
        files = {} if images is None else name_images(images)[0]
        with open_zip(path, EXPORT) as archive:
            names = archive.namelist()
            if LABEL_MAP not in names:
                raise DataError(f"{path}: contains no {LABEL_MAP}; {EXPORT}")
            labels = _read_labels(read_text_member(archive, LABEL_MAP, path), path)
        class_names = tuple(name for name in labels if name != BACKGROUND_NAME)

        def read() -> Iterator[NamedMask]:
            values = _values(labels, class_names)
            with open_zip(path, EXPORT) as archive:
                pictures = (name for name in names if name.endswith(".png"))
                found = {
                    member.removeprefix(f"{CLASS_MASKS}/").removesuffix(".png"): member
                    for member in pictures
                    if member.startswith(f"{CLASS_MASKS}/")
                }
                for name, member in sorted(found.items()):
                    where = f"{path}: {member}"
                    png = read_member(archive, member, path)
                    yield NamedMask(name, _indices(png, values, where))
                for name in _listed(archive, names, path):
                    if name not in found and name in files:
                        yield NamedMask(name, np.zeros(image_size(files[name]), dtype=np.uint8))

        return ReadMasks(class_names, read())


def number_objects(mask: Mask, num_foreground: int) -> npt.NDArray[np.uint8]:
    """Number the connected parts of each class from 1; of more than 255, small ones share numbers.

    CVAT makes one object of each number. An object of several parts could not become a polygon.
    """
    parts = [
        (value, part)
        for value in range(1, num_foreground + 1)
        for part in trace_parts(mask == value)
    ]
    if len(parts) > MOST_OBJECTS:
        parts.sort(key=lambda item: -signed_area(item[1].outline))
    single = len(parts) if len(parts) <= MOST_OBJECTS else MOST_OBJECTS - num_foreground
    objects = np.zeros_like(mask)
    for number, (value, part) in enumerate(parts, start=1):
        inside = draw_part(part, (mask.shape[0], mask.shape[1]))
        objects[inside] = number if number <= single else single + value
    return objects


def _png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode an (H, W, 3) RGB image."""
    buffer = io.BytesIO()
    PILImage.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def _read_labels(text: str, path: Path) -> dict[str, Color]:
    """Read names and colors of a label map.

    Raises:
        DataError: Naming a line without name and color.
    """
    labels: dict[str, Color] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        try:
            red, green, blue = (int(part) for part in rest.split(":")[0].split(","))
        except ValueError as error:
            raise DataError(
                f"{path}: {LABEL_MAP} line {number}: needs NAME:R,G,B::, not '{line}'"
            ) from error
        if not all(0 <= part <= LIGHTEST for part in (red, green, blue)):
            raise DataError(f"{path}: {LABEL_MAP} line {number}: a color has parts from 0 to 255")
        if (red, green, blue) in labels.values():
            raise DataError(f"{path}: {LABEL_MAP} line {number}: the color occurs twice")
        if name.strip() in labels:
            raise DataError(f"{path}: {LABEL_MAP} line {number}: '{name.strip()}' occurs twice")
        labels[name.strip()] = (red, green, blue)
    return labels


def _values(labels: Mapping[str, Color], class_names: Sequence[str]) -> dict[int, int]:
    """Map packed colors to mask values; VOC's border color means ignore."""
    border: Color = tuple(voc_palette()[IGNORE].tolist())
    values = {_packed(border): IGNORE, _packed((0, 0, 0)): BACKGROUND}
    for name, color in labels.items():
        is_class = name != BACKGROUND_NAME
        values[_packed(color)] = class_names.index(name) + 1 if is_class else BACKGROUND
    return values


def _packed(color: Color) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _indices(png: bytes, values: Mapping[int, int], where: str) -> Mask:
    """Decode a colored mask to mask values.

    Raises:
        DataError: If it cannot be decoded, or a color is not in the label map.
    """
    try:
        with PILImage.open(io.BytesIO(png), formats=("PNG",)) as opened:
            rgb = np.asarray(opened.convert("RGB")).astype(np.int64)
    except PILLOW_ERRORS as error:
        raise DataError(f"{where}: cannot be read as a mask ({one_line(error)})") from error
    packed = rgb[..., 0] << 16 | rgb[..., 1] << 8 | rgb[..., 2]
    found, positions = np.unique(packed, return_inverse=True)
    for color in found.tolist():
        if color not in values:
            r, g, b = color >> 16, color >> 8 & 255, color & 255
            raise DataError(f"{where}: color {r},{g},{b} is missing in {LABEL_MAP}; add its class")
    table = np.array([values[color] for color in found.tolist()], dtype=np.uint8)
    mask: Mask = table[positions.reshape(packed.shape)]
    return mask


def _listed(archive: zipfile.ZipFile, members: Sequence[str], path: Path) -> list[str]:
    """Return the image names of all lists."""
    lists = [name for name in members if name.startswith("ImageSets/") and name.endswith(".txt")]
    lines = [line for name in lists for line in read_text_member(archive, name, path).splitlines()]
    return sorted({line.strip() for line in lines if line.strip()})
