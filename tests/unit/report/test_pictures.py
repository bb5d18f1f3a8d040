import io

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.report.pictures import Picture, jpeg_file, jpeg_picture, layer_picture


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def opened(picture):
    return PILImage.open(io.BytesIO(picture.data))


@pytest.mark.parametrize("most", [200_000, 30_000, 2_000])
def test_no_picture_exceeds_its_bound(most):
    jpeg, layer = (
        jpeg_picture("a", noise(300, 400, 3), most),
        layer_picture("a", noise(200, 300, 4), most),
    )
    assert len(jpeg.data) <= most
    assert len(layer.data) <= most
    assert opened(jpeg).width / opened(jpeg).height == pytest.approx(4 / 3, rel=0.05)


def test_small_pictures_keep_their_pixels():
    layer = np.zeros((20, 30, 4), dtype=np.uint8)
    layer[5:9, 5:9] = (255, 0, 0, 115)
    picture = layer_picture("a", layer, 10_000)
    assert (np.asarray(opened(picture)) == layer).all()
    flat = jpeg_picture("a", np.full((40, 60, 3), 90, dtype=np.uint8), 10_000)
    assert np.abs(np.asarray(opened(flat)).astype(int) - 90).max() <= 2
    assert opened(flat).size == (60, 40)


def test_a_file_becomes_a_jpeg(tmp_path):
    PILImage.fromarray(noise(30, 30, 3)).save(tmp_path / "strip.png")
    picture = jpeg_file(tmp_path / "strip.png", 50_000)
    assert (picture.name, opened(picture).format) == ("strip", "JPEG")


def test_picture_is_its_own_address():
    assert Picture("a", b"\x89PNG\r").data_uri == "data:image/png;base64,iVBORw0="
    assert Picture("a", b"\xff\xd8", "jpeg").data_uri == "data:image/jpeg;base64,/9g="


def test_a_damaged_picture_is_left_out(tmp_path) -> None:
    for name, content in {"a.png": b"\x89PNG torn", "b.png": b"", "c.png": b"%!PS"}.items():
        (tmp_path / name).write_bytes(content)
        assert jpeg_file(tmp_path / name, 10_000) is None
