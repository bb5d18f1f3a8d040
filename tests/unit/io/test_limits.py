"""Decompression bombs: the header alone decides, and the message says what raises the limit."""

import os
import struct
import subprocess
import sys
import zlib

import pytest
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.io.images import image_size, read_image
from tag2mask.io.limits import describe_excess, reject_excess

SCRIPT = """
import sys
from pathlib import Path
from tag2mask.io.images import read_image
try:
    print(read_image(Path(sys.argv[1])).shape)
except Exception as error:
    print(error)
"""


def bomb(path, width, height):
    """Write a PNG that announces a size and has next to no data."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    png = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png)
    return path


def test_a_bomb_is_refused_by_its_header_with_the_limit_and_the_setting(tmp_path):
    path = bomb(tmp_path / "a.png", 100_000, 50_000)
    for read in (read_image, image_size):
        with pytest.raises(DataError) as problem:
            read(path)
        message = str(problem.value)
        assert "5,000 megapixels, more than the limit of 179" in message
        assert "TAG2MASK_MAX_MEGAPIXELS=5000" in message


def test_other_readers_have_the_same_limit():
    reject_excess(10_000, 17_000)
    with pytest.raises(Image.DecompressionBombError) as problem:
        reject_excess(20_000, 20_000)
    assert "400 megapixels, more than the limit of 179" in describe_excess(problem.value)


@pytest.mark.parametrize(
    ("limit", "printed"),
    [
        ("0.5", "0.6 megapixels, more than the limit of 0.5; if you trust"),  # 1,000 x 600 px
        ("0.7", "(600, 1000, 3)"),
        ("much", "environment variable TAG2MASK_MAX_MEGAPIXELS is 'much'"),
    ],
)
def test_the_environment_sets_the_limit(tmp_path, limit, printed):
    size = (100_000, 50_000) if limit == "much" else (1000, 600)
    path = tmp_path / "a.png"
    if limit == "much":
        bomb(path, *size)
    else:
        Image.new("RGB", size).save(path)
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(path)],
        env={**os.environ, "TAG2MASK_MAX_MEGAPIXELS": limit},
        capture_output=True,
        text=True,
        check=True,
    )
    assert printed in found.stdout
