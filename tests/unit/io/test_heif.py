import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from tag2mask.errors import DataError
from tag2mask.io import heif
from tag2mask.io.images import list_images, read_image

HEADER = b"\0\0\0\x18ftypheic" + b"\0" * 32


def test_without_the_extra_a_heic_image_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(heif, "can_read_heif", lambda: False)
    for name in ("a.heic", "b.jpg"):  # phones also write HEIC into files called .jpg
        (tmp_path / name).write_bytes(HEADER)
        with pytest.raises(DataError, match=r"a HEIC image; .*pip install 'tag2mask\[heic\]'"):
            read_image(tmp_path / name)
    assert [path.name for path in list_images(tmp_path)] == ["a.heic", "b.jpg"]


def test_other_files_are_no_heic_images(tmp_path):
    for name, content in {"a.mp4": b"\0\0\0\x18ftypisom", "b": b"", "c.jpg": b"text"}.items():
        (tmp_path / name).write_bytes(content)
        assert not heif.is_heif(tmp_path / name)
        with pytest.raises(UnidentifiedImageError):
            heif.open_image(tmp_path / name)


@pytest.mark.parametrize("name", ["a.heic", "a.HEIF", "a.jpg"])
def test_with_the_extra_heic_images_are_read(tmp_path, name):
    plugin = pytest.importorskip("pillow_heif")
    left_to_right = np.tile(np.arange(0, 240, 4, dtype=np.uint8), (40, 1))
    image = Image.fromarray(np.stack([left_to_right] * 3, axis=-1))
    plugin.from_pillow(image).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.heic").rename(tmp_path / name)
    assert heif.is_heif(tmp_path / name)
    pixels = read_image(tmp_path / name)
    assert pixels.shape == (40, 60, 3)
    assert np.abs(pixels[..., 0].astype(int) - left_to_right).mean() < 4
