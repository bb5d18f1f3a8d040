import json
from pathlib import Path

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
