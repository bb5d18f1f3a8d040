"""COCO JSON: polygons, run lengths where an object has holes or parts; read by most tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from pycocotools import mask as coco_mask

from tag2mask.data.coco_annotations import read_annotations
from tag2mask.data.tags import image_key
from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, MaskedImage, NamedMask, ReadMasks
from tag2mask.formats.contours import Pixels, may_be_simple, trace_parts

NOTE = "An annotation is all pixels of one class in one image, not one object."


class COCO(Format):
    """One JSON file with one annotation per class and image; ignored pixels become background."""

    suffix: ClassVar[str] = ".json"

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write the JSON; images without objects are listed without annotations."""
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number, image in enumerate(masks, start=1):
            images.append(
                {
                    "id": number,
                    "file_name": image.file_name,
                    "width": image.width,
                    "height": image.height,
                }
            )
            for annotation in _annotate(image, masks.class_names):
                known = {"id": len(annotations) + 1, "image_id": number}
                annotations.append({**known, **annotation})
        categories = [
            {"id": value, "name": name, "supercategory": ""}
            for value, name in enumerate(masks.class_names, start=1)
        ]
        unlabeled = f"Pixels without annotation are {masks.unlabeled}."
        description = f"Masks of tag2mask. {unlabeled} {NOTE}"
        info = {"description": description, "class_source": masks.class_source}
        content = {
            "info": {**info, "settings": dict(masks.settings)},
            "licenses": [],
            "images": images,
            "annotations": annotations,
            "categories": categories,
        }
        with out.open("w", encoding="utf-8") as file:
            json.dump(content, file, ensure_ascii=False)

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        """Read a COCO file: later annotations lie on top; images without any are background.

        Crowds count as objects, because tools export brush masks as crowds.
        """
        found = read_annotations(path, with_crowds=True)
        if not found.has_shapes:
            raise DataError(
                f"{path}: an annotation has neither polygons nor run lengths; draw its mask, or "
                "delete it"
            )

        def read() -> Iterator[NamedMask]:
            for index, file_name in enumerate(found.file_names):
                name = Path(image_key(file_name)).with_suffix("").as_posix()
                yield NamedMask(name, found.mask(index))

        return ReadMasks(found.class_names, read())


def _annotate(image: MaskedImage, class_names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """Yield one annotation for each class of an image."""
    mask = image.load()
    for value, name in enumerate(class_names, start=1):
        inside = mask == value
        if not inside.any():
            continue
        runs = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        annotation = {
            "category_id": value,
            "segmentation": _segmentation(inside, runs),
            "area": int(coco_mask.area(runs)),
            "bbox": coco_mask.toBbox(runs).tolist(),
            "iscrowd": 0,
        }
        if name in image.scores:
            annotation["score"] = image.scores[name]
        yield annotation


def _segmentation(inside: Pixels, runs: dict[str, Any]) -> list[list[int]] | dict[str, Any]:
    """Return one polygon, or run lengths if there are several parts or holes."""
    parts = trace_parts(inside) if may_be_simple(inside) else []
    if len(parts) == 1 and not parts[0].holes:
        return [parts[0].outline.ravel().tolist()]
    return {"size": list(inside.shape), "counts": runs["counts"].decode("ascii")}
