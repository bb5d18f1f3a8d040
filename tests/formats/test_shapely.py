"""Shapely, which GIS tools build on, takes each feature as a valid polygon of the exact pixels."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.formats.conftest import scene_masks

shapely = pytest.importorskip("shapely")
pytestmark = pytest.mark.formats


def test_features_are_valid_polygons_of_the_exact_pixels(
    export: Callable[[str, str], Path],
) -> None:
    out = export("geojson", "geojson")
    for name, mask in scene_masks().items():
        rows, columns = np.indices(mask.shape)
        found = np.zeros_like(mask)
        content = json.loads((out / f"{name}.geojson").read_text("utf-8"))
        for feature in content["features"]:
            polygon = shapely.geometry.shape(feature["geometry"])
            assert polygon.is_valid
            assert polygon.exterior.is_ccw  # RFC 7946, for y as it is written
            assert polygon.area == feature["properties"]["area_px"]
            inside = shapely.contains_xy(polygon, columns + 0.5, rows + 0.5)
            assert not found[inside].any()
            label = feature["properties"]["classification"]["name"]
            found[inside] = ("cat", "two words").index(label) + 1
        assert np.array_equal(found, mask), name
