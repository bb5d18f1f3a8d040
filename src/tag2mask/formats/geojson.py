"""GeoJSON: a FeatureCollection of polygons per image in pixel coordinates, for QuPath and GIS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tag2mask.formats.base import Format, MaskCollection, MaskedImage
from tag2mask.formats.contours import Part, Ring, signed_area, trace_parts

NOTE = "x to the right and y down, in pixels from the upper left corner; not georeferenced"


class GeoJSON(Format):
    """A folder with NAME.geojson for each image; a feature is a connected part of one class."""

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write a file per image; an image without objects has no features."""
        for image in masks:
            content = {
                "type": "FeatureCollection",
                "image": image.file_name,
                "width": image.width,
                "height": image.height,
                "coordinates": NOTE,
                "background": "pixels outside all features",
                "features": list(_features(image, masks)),
            }
            path = out / f"{image.name}.geojson"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _features(image: MaskedImage, masks: MaskCollection) -> Iterator[dict[str, Any]]:
    """Yield a feature for each connected part, with the class as QuPath reads it."""
    mask = image.load()
    for value, name in enumerate(masks.class_names, start=1):
        for part in trace_parts(mask == value):
            area = signed_area(part.outline) + sum(map(signed_area, part.holes))
            properties = {
                "objectType": "annotation",
                "classification": {"name": name, "color": list(masks.palette[value])},
                "area_px": int(area),
            }
            if name in image.scores:
                properties["score"] = image.scores[name]
            yield {"type": "Feature", "geometry": _polygon(part), "properties": properties}


def _polygon(part: Part) -> dict[str, Any]:
    """Return a polygon whose rings end where they start, the outline first."""
    rings = (part.outline, *part.holes)
    return {"type": "Polygon", "coordinates": [_closed(ring) for ring in rings]}


def _closed(ring: Ring) -> list[list[int]]:
    """Repeat the first corner at the end."""
    corners: list[list[int]] = ring.tolist()
    return [*corners, corners[0]]
