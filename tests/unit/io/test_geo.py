"""GeoTIFF tags against coordinates that are computed by hand, and against GDAL where it is."""

import warnings

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.unit.formats.geotiff_image import UTM_33N, save_geotiff

from tag2mask.errors import DataError
from tag2mask.io import images
from tag2mask.io.geo import georeference
from tag2mask.io.images import find_unreadable, read_image


def gray(height=4, width=6):
    return np.zeros((height, width), dtype=np.uint8)


def test_corners_of_pixels_get_map_coordinates(tmp_path):
    found = georeference(save_geotiff(tmp_path / "a.tif", gray()))
    assert found.epsg == UTM_33N
    corners = found.to_map(np.array([[0, 0], [6, 4]]))
    np.testing.assert_allclose(corners, [[400_000, 5_000_000], [400_003, 4_999_998]])


def test_coordinates_of_pixel_centers_are_moved_to_corners(tmp_path):
    found = georeference(save_geotiff(tmp_path / "a.tif", gray(), raster_type=2))
    np.testing.assert_allclose(found.to_map(np.array([[0, 0]])), [[399_999.75, 5_000_000.25]])


def test_a_turned_image_has_a_matrix(tmp_path):
    matrix = (0.0, 2.0, 0, 100.0, -2.0, 0.0, 0, 200.0, 0, 0, 0, 0, 0, 0, 0, 1.0)
    found = georeference(save_geotiff(tmp_path / "a.tif", gray(), matrix=matrix))
    np.testing.assert_allclose(found.to_map(np.array([[3, 1]])), [[102, 194]])


def test_images_without_tags_have_no_georeference(tmp_path):
    PILImage.fromarray(gray()).save(tmp_path / "a.tif")
    PILImage.fromarray(gray()).save(tmp_path / "a.png")
    assert georeference(tmp_path / "a.tif") is None
    assert georeference(tmp_path / "a.png") is None
    assert georeference(save_geotiff(tmp_path / "b.tif", gray(), epsg=32767)).epsg is None


def test_a_raster_of_many_bands_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + bytes(100))  # what Pillow cannot identify
    monkeypatch.setattr(images, "can_read_rasters", lambda: False)
    with pytest.raises(DataError, match=r"pip install 'tag2mask\[geo\]'"):
        read_image(path)
    assert "[geo]" in find_unreadable([path])[path]


def test_the_extra_reads_many_bands_of_16_bits_and_gdal_agrees_on_the_place(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.tif"
    values = np.random.default_rng(0).integers(0, 4096, (6, 20, 30)).astype(np.uint16)
    values[:3, 0, 0], values[:3, 0, 1] = 0, 4095
    upper_left = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_000_000)
    with rasterio.open(
        path, "w", driver="GTiff", width=30, height=20, count=6, dtype="uint16",
        crs="EPSG:32633", transform=upper_left,
    ) as opened:  # fmt: skip
        opened.write(values)
    image = read_image(path, (0, 4095))
    expected = (values[:3].astype(float) * 255 / 4095).round().transpose(1, 2, 0)
    np.testing.assert_allclose(image, expected, atol=1)
    assert find_unreadable([path]) == {}
    mask = save_geotiff(tmp_path / "b.tif", gray())
    with rasterio.open(mask) as opened:
        assert opened.crs.to_epsg() == georeference(mask).epsg
        np.testing.assert_allclose(
            np.array(opened.transform[:6]).reshape(2, 3), georeference(mask).matrix
        )


def test_the_extra_keeps_12_bits_of_a_color_png(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "a.png"
    values = np.linspace(0, 4095, 3 * 20 * 30).astype(np.uint16).reshape(3, 20, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(
            path, "w", driver="PNG", width=30, height=20, count=3, dtype="uint16"
        ) as opened:
            opened.write(values)
    image = read_image(path, (0, 4095))
    np.testing.assert_allclose(
        image, (values.astype(float) * 255 / 4095).transpose(1, 2, 0), atol=1
    )
