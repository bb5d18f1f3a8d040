import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.data.indexed_png import SIGNATURE, read_indexed_png
from tag2mask.io.masks import save_mask


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(rows, *, width, depth=8, color=3, interlace=0, parts=1):
    """A PNG file from its raw rows, each with its filter byte."""
    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, interlace)
    data = zlib.compress(b"".join(map(bytes, rows)))
    step = -(-len(data) // parts)
    pieces = [chunk(b"IDAT", data[at : at + step]) for at in range(0, len(data), step)]
    palette = chunk(b"PLTE", bytes(768)) if color == 3 else b""
    return b"".join([SIGNATURE, chunk(b"IHDR", header), palette, *pieces, chunk(b"IEND", b"")])


@pytest.fixture
def file(tmp_path):
    def write(content: bytes) -> Path:
        (tmp_path / "mask.png").write_bytes(content)
        return tmp_path / "mask.png"

    return write


def test_own_masks_are_read_as_pillow_reads_them(tmp_path):
    values = np.random.default_rng(0).integers(0, 256, (37, 53), dtype=np.uint8)
    save_mask(values, tmp_path / "own.png")
    found = read_indexed_png(tmp_path / "own.png")
    np.testing.assert_array_equal(found, values)
    assert found.flags.writeable
    with PILImage.open(tmp_path / "own.png") as picture:
        np.testing.assert_array_equal(found, np.asarray(picture))


@pytest.mark.parametrize(("color", "parts"), [(0, 1), (3, 1), (3, 4)])
def test_gray_and_palette_in_one_or_several_chunks(file, color, parts):
    rows = [[0, 1, 2, 3], [0, 255, 0, 7]]
    found = read_indexed_png(file(png(rows, width=3, color=color, parts=parts)))
    assert found.tolist() == [[1, 2, 3], [255, 0, 7]]


@pytest.mark.parametrize(
    "content",
    [
        png([[0, 1, 2], [2, 1, 2]], width=2),  # the second row is filtered
        png([[0, 1, 2]], width=2, interlace=1),
        png([[0, 0x12]], width=2, depth=4),
        png([[0, 1, 2, 3]], width=1, color=2),
        png([[0, 1]], width=2),  # too short a row
        png([[0, 1, 2, 3]], width=2),  # too long a one
        png([[0, 1, 2]], width=2)[:-30],
        png([[0, 1, 2]], width=2).replace(b"IDAT", b"iDAT"),
        b"GIF89a",
        b"",
        SIGNATURE + struct.pack(">I", 13) + b"IHDR",
        png([[0]], width=0),
    ],
)
def test_all_else_is_left_to_pillow(file, content):
    assert read_indexed_png(file(content)) is None


def test_a_flipped_bit_is_noticed(file):
    content = bytearray(png([[0, *range(200)]], width=200))
    at = content.index(b"IDAT") + 60
    content[at] ^= 4
    assert read_indexed_png(file(bytes(content))) is None


def test_a_bomb_is_not_inflated(file):
    content = png([[0, 1, 2]], width=2)
    bomb = zlib.compress(bytes(100_000_000))
    at = content.index(b"IDAT") - 4
    content = content[:at] + chunk(b"IDAT", bomb) + chunk(b"IEND", b"")
    assert read_indexed_png(file(content)) is None


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_indexed_png(tmp_path / "gone.png")


@pytest.mark.real
def test_official_masks_are_of_the_usual_kind(voc_animals):
    paths = sorted((voc_animals / "SegmentationClass").glob("*.png"))[:20]
    for path in paths:
        with PILImage.open(path) as picture:
            np.testing.assert_array_equal(read_indexed_png(path), np.asarray(picture))
