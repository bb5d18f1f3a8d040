"""The folder layout that ultralytics trains on: images, labels beside them, data.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tag2mask.data.index import name_images
from tag2mask.errors import DataError
from tag2mask.formats.base import MaskedImage
from tag2mask.io.yaml_files import read_yaml

DATA_FILE = "data.yaml"
IMAGES = "images"
PART = "train"
PARTS = ("train", "val", "valid", "test")
"""Names of the parts of a data set, as ultralytics, CVAT and Roboflow write them."""


class LabelFile(NamedTuple):
    """A label file of a data set."""

    name: str
    """Of the image."""
    path: Path
    image: Path | None
    """The image file in the data set; None without one."""


def write_data_file(
    out: Path, names: Mapping[int, str], note: str, masks_dir: str | None = None
) -> None:
    """Write `data.yaml`; images of both parts are the same, so the user splits them.

    Args:
        out: Folder of the data set.
        names: Class index -> name.
        note: Comment on its first line.
        masks_dir: Name of the folder of PNG masks; None: labels are polygons.
    """
    # Without `path`, folders are relative to the file itself, also after the data set is moved.
    content: dict[str, Any] = {"train": f"{IMAGES}/{PART}", "val": f"{IMAGES}/{PART}"}
    if masks_dir is not None:
        content["masks_dir"] = masks_dir
    content["names"] = dict(names)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (out / DATA_FILE).write_text(f"# {note}\n{text}", encoding="utf-8")


def copy_image(image: MaskedImage, out: Path, format_name: str) -> None:
    """Copy an image into a data set, so that the folder is complete.

    Raises:
        DataError: If the image is missing.
    """
    image.copy_image(out / IMAGES / PART / image.file_name, format_name)


def label_path(image: MaskedImage, out: Path, folder: str, suffix: str) -> Path:
    """Return where the label of an image belongs, and make its folder."""
    target = out / folder / PART / f"{image.name}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def read_data_file(folder: Path) -> dict[str, Any]:
    """Read `data.yaml`, with `names` as a list by class index.

    Raises:
        DataError: If it is missing, invalid, or has no names.
    """
    path = folder / DATA_FILE
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; give the unpacked folder of the data set, with its {DATA_FILE}"
        )
    content = read_yaml(path, DataError)
    if not isinstance(content, dict):
        raise DataError(f"{path}: needs names with the class of each index from 0")
    names = content.get("names")
    if isinstance(names, dict) and set(names) == set(range(len(names))):
        names = [names[index] for index in range(len(names))]
    if not isinstance(names, list) or not names:
        raise DataError(f"{path}: needs names with the class of each index from 0")
    return {**content, "names": [str(name) for name in names]}


def find_labels(folder: Path, labels: str, suffix: str) -> Iterator[LabelFile]:
    """Yield the label files of all parts of a data set.

    Args:
        folder: Contains `labels/train/...`, `train/labels/...` or `labels/...`.
        labels: Name of the folder of labels.
        suffix: Of label files.

    Raises:
        DataError: If there is no such folder.
    """
    pairs = [(folder / labels / part, folder / IMAGES / part) for part in PARTS]
    pairs += [(folder / part / labels, folder / part / IMAGES) for part in PARTS]
    existing = [pair for pair in pairs if pair[0].is_dir()]
    if not existing and (folder / labels).is_dir():
        existing = [(folder / labels, folder / IMAGES)]
    if not existing:
        raise DataError(f"{folder / labels / PART}: no such folder")
    for root, image_root in existing:
        images = name_images(image_root)[0] if image_root.is_dir() else {}
        for path in sorted(root.rglob(f"*{suffix}")):
            name = path.relative_to(root).with_suffix("").as_posix()
            yield LabelFile(name, path, images.get(name))
