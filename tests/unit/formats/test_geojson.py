import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from tests.unit.formats.geotiff_image import one_mask, save_geotiff

from tag2mask.formats.base import MaskCollection
from tag2mask.formats.geojson import GeoJSON


def test_rings_are_closed_and_name_their_class(masks: MaskCollection, tmp_path: Path) -> None:
    GeoJSON().write(masks, tmp_path / "out")
    ring = json.loads((tmp_path / "out" / "lane1" / "ring.geojson").read_text("utf-8"))
    assert ring["type"] == "FeatureCollection"
    assert (ring["image"], ring["width"], ring["height"]) == ("lane1/ring.jpg", 9, 7)
    (feature,) = ring["features"]
    outline, hole = feature["geometry"]["coordinates"]
    assert outline == [[8, 1], [8, 6], [2, 6], [2, 1], [8, 1]]
    assert hole == [[4, 4], [6, 4], [6, 3], [4, 3], [4, 4]]
    assert feature["properties"] == {
        "objectType": "annotation",
        "classification": {"name": "cat", "color": [128, 0, 0]},
        "area_px": 28,
        "score": 0.75,
    }


def test_image_without_objects_has_no_features(masks: MaskCollection, tmp_path: Path) -> None:
    GeoJSON().write(masks, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "none.geojson").read_text())["features"] == []


def test_polygons_of_a_geotiff_have_map_coordinates(tmp_path: Path) -> None:
    image = save_geotiff(tmp_path / "field.tif", np.zeros((4, 6, 3), dtype=np.uint8))
    masks = one_mask(np.array([[0] * 6, [0, 1, 1, 0, 0, 0], [0] * 6, [0] * 6]), image)
    GeoJSON().write(masks, tmp_path / "out")
    content = json.loads((tmp_path / "out" / "field.geojson").read_text("utf-8"))
    assert content["crs"]["properties"]["name"] == "urn:ogc:def:crs:EPSG::32633"
    (ring,) = content["features"][0]["geometry"]["coordinates"]
    west, east, north, south = 400_000.5, 400_001.5, 4_999_999.5, 4_999_999.0
    assert sorted(map(tuple, ring[:-1])) == sorted(
        [(west, north), (east, north), (east, south), (west, south)]
    )
    x, y = np.array(ring).T  # counterclockwise on the map, as RFC 7946 asks
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0


def test_pixels_outside_features_are_undecided_without_background(tmp_path: Path) -> None:
    image = save_geotiff(tmp_path / "field.tif", np.zeros((2, 2, 3), dtype=np.uint8))
    masks = one_mask(np.ones((2, 2)), image)
    for settings, expected in (({}, "are background"), ({"has_background": False}, "undecided")):
        out = tmp_path / expected.replace(" ", "_")
        GeoJSON().write(replace(masks, settings=settings), out)
        assert expected in json.loads((out / "field.geojson").read_text())["unlabeled"]
