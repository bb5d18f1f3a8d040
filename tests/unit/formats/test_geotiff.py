import json

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.unit.formats.geotiff_image import UTM_33N, one_mask, save_geotiff

from tag2mask.formats.geotiff import GeoTIFF
from tag2mask.io.geo import georeference

MASK = np.array([[0, 1, 1], [1, 0, 255]], dtype=np.uint8)


def test_a_mask_lies_where_its_image_lies(tmp_path):
    image = save_geotiff(tmp_path / "field.tif", np.zeros((2, 3, 3), dtype=np.uint8))
    GeoTIFF().write(one_mask(MASK, image), tmp_path / "out")
    path = tmp_path / "out" / "field.tif"
    found, expected = georeference(path), georeference(image)
    assert found.epsg == expected.epsg == UTM_33N
    np.testing.assert_array_equal(found.matrix, expected.matrix)
    with PILImage.open(path) as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.asarray(opened), MASK)
    assert json.loads((tmp_path / "out" / "classes.json").read_text())["classes"] == ["weeds"]


def test_gdal_reads_values_place_and_missing_data(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    image = save_geotiff(tmp_path / "field.tif", np.zeros((2, 3, 3), dtype=np.uint8))
    GeoTIFF().write(one_mask(MASK, image), tmp_path / "out")
    with rasterio.open(tmp_path / "out" / "field.tif") as opened:
        np.testing.assert_array_equal(opened.read(1), MASK)
        assert opened.crs.to_epsg() == UTM_33N
        assert opened.nodata == 255
        assert opened.bounds[:] == (400_000, 4_999_999, 400_001.5, 5_000_000)
        assert opened.colormap(1)[1][:3] == (128, 0, 0)


def test_an_image_without_place_gives_a_mask_without_one(tmp_path):
    PILImage.fromarray(MASK).save(tmp_path / "plain.png")
    GeoTIFF().write(one_mask(MASK, tmp_path / "plain.png"), tmp_path / "out")
    assert georeference(tmp_path / "out" / "plain.tif") is None
