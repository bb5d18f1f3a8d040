"""Croissant: images, masks and their JSON-LD metadata, for data set hubs and mlcroissant."""

from __future__ import annotations

import csv
import hashlib
import json
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from tag2mask.formats.base import Format, MaskCollection, MaskedImage
from tag2mask.types import BACKGROUND, IGNORE
from tag2mask.version import __version__

NAME = "croissant"
METADATA, SAMPLES, IMAGES, MASKS = "croissant.json", "samples.csv", "images", "masks"
COLUMNS = ("image", "mask", "width", "height", "uncertainty", "class_scores")
CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The standard context of Croissant 1.0."""


class Croissant(Format):
    """A folder of images and masks that describes itself; there is nothing to import back.

    Source:
        Croissant 1.0 (docs.mlcommons.org/croissant/docs/croissant-spec-1.0.html).
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Copy the images; write masks, a table of samples and the metadata."""
        rows = []
        for image in masks:
            image.copy_image(out / IMAGES / image.file_name, NAME)
            image.save_gray_mask(out / MASKS / f"{image.name}.png")
            rows.append(_row(image))
        with (out / SAMPLES).open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS)
            table.writeheader()
            table.writerows(rows)
        digest = hashlib.sha256((out / SAMPLES).read_bytes()).hexdigest()
        text = json.dumps(_metadata(masks, digest), indent=1, ensure_ascii=False)
        (out / METADATA).write_text(f"{text}\n", encoding="utf-8")


def _row(image: MaskedImage) -> dict[str, Any]:
    """Return the line of one image in the table of samples."""
    return {
        "image": f"{IMAGES}/{image.file_name}",
        "mask": f"{MASKS}/{image.name}.png",
        "width": image.width,
        "height": image.height,
        "uncertainty": "" if image.uncertainty is None else image.uncertainty,
        "class_scores": json.dumps(dict(image.scores), ensure_ascii=False),
    }


def _metadata(masks: MaskCollection, digest: str) -> dict[str, Any]:
    """Return the JSON-LD; owners of the data add license, url and creator."""
    names, source = ", ".join(masks.class_names), masks.class_source or "unknown"
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "tag2mask_masks",
        "description": (
            f"{len(masks)} images with semantic masks of {names}, made by tag2mask "
            f"{__version__} from image-level tags (classes from {source}); "
            f"not drawn by people. Mask value {BACKGROUND} is {masks.unlabeled}, {IGNORE} is "
            "ignore."
        ),
        "version": "1.0.0",
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": SAMPLES,
                "name": SAMPLES,
                "contentUrl": SAMPLES,
                "encodingFormat": "text/csv",
                "sha256": digest,
            },
            _file_set(IMAGES, _media_types(masks)),
            _file_set(MASKS, ["image/png"]),
        ],
        "recordSet": [_classes(masks), _samples(), _files(IMAGES), _files(MASKS)],
    }


def _media_types(masks: MaskCollection) -> list[str]:
    """Return the media types of the images, such as image/jpeg."""
    names = {Path(image.file_name).suffix.lower() for image in masks}
    return sorted({guess_type(f"image{suffix}")[0] or "image/unknown" for suffix in names})


def _file_set(folder: str, media_types: list[str]) -> dict[str, Any]:
    """Describe the files of a folder beside the metadata, in all folders below it."""
    return {
        "@type": "cr:FileSet",
        "@id": f"{folder}-files",
        "name": f"{folder}-files",
        "encodingFormat": media_types,
        "includes": f"{folder}/*",
    }


def _classes(masks: MaskCollection) -> dict[str, Any]:
    """Describe the mask values as records in the metadata itself."""
    names = {**dict(enumerate(("background", *masks.class_names))), IGNORE: "ignore"}
    return {
        "@type": "cr:RecordSet",
        "@id": "classes",
        "name": "classes",
        "dataType": "sc:Enumeration",
        "key": {"@id": "classes/value"},
        "field": [_field("classes/value", "sc:Integer"), _field("classes/name", "sc:Text")],
        "data": [{"classes/value": value, "classes/name": name} for value, name in names.items()],
    }


def _samples() -> dict[str, Any]:
    """Describe the table of samples; its paths are those of the records of images and masks."""
    columns = {
        "image": "sc:Text",
        "mask": "sc:Text",
        "width": "sc:Integer",
        "height": "sc:Integer",
        "uncertainty": "sc:Text",
        "class_scores": "sc:Text",
    }
    fields = [
        _field(
            f"samples/{name}",
            kind,
            {"fileObject": {"@id": SAMPLES}, "extract": {"column": name}},
        )
        for name, kind in columns.items()
    ]
    return {"@type": "cr:RecordSet", "@id": "samples", "name": "samples", "field": fields}


def _files(folder: str) -> dict[str, Any]:
    """Describe the files of a folder: path and decoded image."""
    kinds = {"path": ("fullpath", "sc:Text"), "content": ("content", "sc:ImageObject")}
    fields = [
        _field(
            f"{folder}/{name}",
            kind,
            {"fileSet": {"@id": f"{folder}-files"}, "extract": {"fileProperty": part}},
        )
        for name, (part, kind) in kinds.items()
    ]
    return {"@type": "cr:RecordSet", "@id": folder, "name": folder, "field": fields}


def _field(name: str, kind: str, source: dict[str, Any] | None = None) -> dict[str, Any]:
    field = {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind}
    return field if source is None else {**field, "source": source}
