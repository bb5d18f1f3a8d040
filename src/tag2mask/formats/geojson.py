"""GeoJSON: a FeatureCollection of polygons per image, for QuPath (in pixels) and GIS.

Polygons of a GeoTIFF have the map coordinates of its coordinate system, which the file names; those
of other images have pixel coordinates.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tag2mask.formats.base import Format, MaskCollection, MaskedImage
from tag2mask.formats.contours import Part, Ring, signed_area, trace_parts
from tag2mask.io.geo import Georeference

MAP_NOTE = "map coordinates of the image, in the coordinate system of `crs` if it is named"
NOTE = "x to the right and y down, in pixels from the upper left corner; not georeferenced"


class GeoJSON(Format):
    """A folder with NAME.geojson for each image; a feature is a connected part of one class."""

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write a file per image; an image without objects has no features."""
        for image in masks:
            on_map = image.georeference()
            content = {
                "type": "FeatureCollection",
                "image": image.file_name,
                "width": image.width,
                "height": image.height,
                "coordinates": NOTE if on_map is None else MAP_NOTE,
                **_coordinate_system(on_map),
                "unlabeled": f"pixels outside all features are {masks.unlabeled}",
                "features": list(_features(image, masks, on_map)),
            }
            path = out / f"{image.name}.geojson"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


def _coordinate_system(on_map: Georeference | None) -> dict[str, Any]:
    """Name the coordinate system as QGIS and GDAL read it."""
    if on_map is None or on_map.epsg is None:
        return {}
    name = f"urn:ogc:def:crs:EPSG::{on_map.epsg}"
    return {"crs": {"type": "name", "properties": {"name": name}}}


def _features(
    image: MaskedImage, masks: MaskCollection, on_map: Georeference | None
) -> Iterator[dict[str, Any]]:
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
            yield {"type": "Feature", "geometry": _polygon(part, on_map), "properties": properties}


def _polygon(part: Part, on_map: Georeference | None) -> dict[str, Any]:
    """Return a polygon whose rings end where they start, the outline first."""
    rings = (part.outline, *part.holes)
    return {"type": "Polygon", "coordinates": [_closed(ring, on_map) for ring in rings]}


def _closed(ring: Ring, on_map: Georeference | None) -> list[list[float]]:
    """Repeat the first corner at the end; on a map, y points up, and so the direction turns."""
    corners: list[list[float]] = ring.tolist()
    if on_map is not None:
        turns = np.linalg.det(on_map.matrix[:, :2]) > 0
        corners = on_map.to_map(ring if turns else ring[::-1]).tolist()
    return [*corners, corners[0]]
