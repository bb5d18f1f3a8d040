"""Open the masks of a folder that `label` or `predict` wrote, for export."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tag2mask.data.index import find_masks, name_images
from tag2mask.data.tags import image_key, name_some
from tag2mask.errors import DataError
from tag2mask.formats.base import MaskCollection, MaskedImage
from tag2mask.io.heif import open_image
from tag2mask.io.images import PILLOW_ERRORS, one_line
from tag2mask.io.mask_folder import CLASSES_FILE, read_classes, read_scores
from tag2mask.io.masks import read_mask
from tag2mask.io.palette import voc_palette


def open_masks(folder: Path, images: Path | None = None) -> MaskCollection:
    """Open a folder of masks; masks are read later, one at a time.

    Args:
        folder: Has `classes.json`; `scores.jsonl` names the image file of each mask.
        images: Folder of the images, with the folders that the masks have; None: as recorded when
            the masks were written.

    Raises:
        DataError: If it contains no masks, or the image file of a mask is unknown.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if not (folder / CLASSES_FILE).is_file():
        raise DataError(
            f"{folder}: contains no masks ({CLASSES_FILE} is missing); write masks first: "
            f"tag2mask label {folder} DATA --out MASKS"
        )
    classes = read_classes(folder)
    names = tuple(classes["classes"])
    masks = find_masks(folder)
    if not masks:
        raise DataError(f"{folder}: contains no masks, only {CLASSES_FILE}")
    rows = {image_key(name): row for name, row in read_scores(folder).items()}
    files = _image_files(masks, rows, images, folder)
    return MaskCollection(
        class_names=names,
        palette=tuple((int(r), int(g), int(b)) for r, g, b in voc_palette()[: len(names) + 1]),
        images=tuple(
            _masked_image(name, path, files[name], rows.get(name, {}), len(names))
            for name, path in sorted(masks.items())
        ),
        class_source=classes.get("class_source"),
        settings=classes.get("settings", {}),
    )


def _masked_image(
    name: str, mask: Path, image: Path, row: Mapping[str, Any], num_foreground: int
) -> MaskedImage:
    """Describe one image; its size comes from the header of the mask."""
    try:
        with open_image(mask) as opened:
            width, height = opened.size
    except PILLOW_ERRORS as error:
        raise DataError(f"{mask}: cannot be read as a mask ({one_line(error)})") from error
    return MaskedImage(
        name=name,
        file_name=Path(*image.parts[-1 - name.count("/") :]).as_posix(),
        width=width,
        height=height,
        load=partial(read_mask, mask, num_foreground, (height, width)),
        image_path=image if image.is_file() else None,
        scores=row.get("scores", {}),
        uncertainty=row.get("uncertainty"),
    )


def _image_files(
    masks: Mapping[str, Path],
    rows: Mapping[str, Mapping[str, Any]],
    images: Path | None,
    folder: Path,
) -> dict[str, Path]:
    """Find the image file of each mask, in `images` or where it was when the mask was written."""
    if images is not None:
        files, _ = name_images(images)
        where = f"{images}: there is no image for {{}}; give the folder that was labeled"
    else:
        files = {
            name: Path(row["folder"], row["image"])
            for name, row in rows.items()
            if "image" in row and "folder" in row
        }
        where = (
            f"{folder}: the image files of {{}} are not recorded beside the masks; give the folder "
            "of the images: --images DIR"
        )
    missing = [name for name in masks if name not in files]
    if missing:
        raise DataError(where.format(name_some(missing)))
    return files
