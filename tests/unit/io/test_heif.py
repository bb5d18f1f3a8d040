import os

import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from tag2mask.errors import DataError
from tag2mask.io import heif
from tag2mask.io.images import find_unreadable, list_images, read_image

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


@pytest.mark.parametrize("format_name", ["EPS", "PDF", "ICO", "TGA", "PCX"])
def test_a_format_that_is_not_listed_is_never_opened(tmp_path, format_name):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (32, 32)).save(path, format=format_name)
    with pytest.raises(UnidentifiedImageError):
        heif.open_image(path)
    with pytest.raises(DataError, match="cannot identify image file"):
        read_image(path)


@pytest.mark.timeout(20)
def test_a_named_pipe_and_a_device_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    for name in ("pipe.jpg", "zero.jpg"):
        with pytest.raises(DataError, match="is not a regular file"):
            read_image(tmp_path / name)
        with pytest.raises(OSError, match="is not a regular file"):
            heif.is_heif(tmp_path / name)
    assert len(find_unreadable(list_images(tmp_path))) == 2
