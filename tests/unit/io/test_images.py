import io
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tag2mask.errors import DataError
from tag2mask.io import images
from tag2mask.io.images import find_unreadable, image_size, list_images, read_image, rgb_from_pil


def _save(array, path, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)
    return path


def _noise(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_size_of_no_image_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: no such file"):
        image_size(tmp_path / "a.png")
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        image_size(tmp_path / "a.png")


def test_an_rgb_image_is_read_unchanged_and_writable(tmp_path):
    image = read_image(_save(_noise(), tmp_path / "a.png"))
    np.testing.assert_array_equal(image, _noise())
    assert image.flags.writeable


# Position of the stored top-left pixel in the upright image, by the EXIF standard.
@pytest.mark.parametrize(
    ("orientation", "shape", "corner"),
    [
        (1, (2, 3), (0, 0)),
        (2, (2, 3), (0, -1)),
        (3, (2, 3), (-1, -1)),
        (4, (2, 3), (-1, 0)),
        (5, (3, 2), (0, 0)),
        (6, (3, 2), (0, -1)),
        (7, (3, 2), (-1, -1)),
        (8, (3, 2), (-1, 0)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, shape, corner):
    stored = np.zeros((2, 3, 3), dtype=np.uint8)
    stored[0, 0] = (250, 10, 20)
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = read_image(_save(stored, tmp_path / "a.png", exif=exif))
    assert upright.shape == (*shape, 3)
    assert image_size(tmp_path / "a.png") == shape
    assert upright[corner].tolist() == [250, 10, 20]
    assert upright.sum() == 280


def test_invalid_exif_leaves_the_image_unchanged(tmp_path):
    path = _save(_noise(), tmp_path / "a.png", exif=b"not a TIFF header")
    np.testing.assert_array_equal(read_image(path), _noise())


def test_a_gray_image_has_three_equal_channels(tmp_path):
    image = read_image(_save([[0, 128, 255]], tmp_path / "a.png"))
    np.testing.assert_array_equal(image, [[[0] * 3, [128] * 3, [255] * 3]])


def test_transparent_pixels_are_blended_with_white(tmp_path):
    image = read_image(_save([[[10, 20, 30, 255], [10, 20, 30, 0]]], tmp_path / "a.png"))
    np.testing.assert_array_equal(image, [[[10, 20, 30], [255, 255, 255]]])
    half = read_image(_save([[[100, 100], [0, 51]]], tmp_path / "b.png"))  # gray and alpha
    # 100 * 100/255 + 255 * 155/255 = 194.2; 0 + 255 * 204/255 = 204
    np.testing.assert_allclose(half[0, :, 0], [194, 204], atol=1)


def test_a_palette_image_keeps_colors_and_transparency(tmp_path):
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    image.putpalette([200, 100, 50, 1, 2, 3])
    image.save(tmp_path / "a.png")
    image.save(tmp_path / "b.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[200, 100, 50], [1, 2, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0], [[200, 100, 50], [255] * 3])


def test_16_bit_gray_is_scaled_to_8_bits(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 1], [0, 100, 255])


@pytest.mark.parametrize("value", [-1, 65_536])
def test_pixels_of_more_than_16_bits_are_rejected(tmp_path, value):
    Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="more than 16 bits"):
        read_image(tmp_path / "a.tif")


def test_a_cmyk_image_is_converted_to_rgb(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [0, 255, 255], atol=4)


def test_a_one_bit_image_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 2], [255, 0])


def test_an_image_in_memory_is_converted_like_a_file():
    np.testing.assert_array_equal(
        rgb_from_pil(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), [[[255] * 3]]
    )


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_a_large_image_is_converted_in_bands_to_the_same_pixels(tmp_path, monkeypatch, mode):
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(_noise()).convert(mode).save(path, exif=exif)
    expected = read_image(path)
    monkeypatch.setattr(images, "_BAND_PIXELS", 150)
    np.testing.assert_array_equal(read_image(path), expected)
    assert read_image(path).flags.writeable


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "float"])
def test_an_unreadable_image_is_rejected_by_name(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(images, "can_read_rasters", lambda: False)
    path = tmp_path / ("é.tif" if kind == "float" else "é.jpg")
    if kind == "float":
        Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path)
    elif kind != "missing":
        stream = io.BytesIO()
        Image.fromarray(_noise()).save(stream, "JPEG")
        complete = stream.getvalue()
        content = {"empty": b"", "text": b"no image", "truncated": complete[: len(complete) // 2]}
        path.write_bytes(content[kind])
    with pytest.raises(DataError, match=r"é\.(jpg|tif)") as problem:
        read_image(path)
    assert "\n" not in str(problem.value)


@pytest.mark.parametrize("action", ["error", "ignore"])
@pytest.mark.parametrize("read", [read_image, image_size])
def test_a_tiff_file_cut_off_in_its_tags_is_rejected_by_name(tmp_path, read, action):
    path = _save(_noise(), tmp_path / "cut.tif")
    path.write_bytes(path.read_bytes()[:60])
    with (
        warnings.catch_warnings(action=action),
        pytest.raises(DataError, match=r"cut\.tif: "),
    ):
        read(path)  # Pillow warns of it


@pytest.mark.parametrize(
    "error",
    [RuntimeError("no image item"), TypeError("bad operand"), KeyError(256), IndexError("strip")],
)
def test_every_error_of_pillow_becomes_one_line(tmp_path, monkeypatch, error):
    path = _save(_noise(), tmp_path / "a.png")

    def fail(image):
        raise error

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", fail)
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        read_image(path)


def test_a_warning_of_pillow_is_not_printed(tmp_path):
    path = _save(_noise(), tmp_path / "cut.tif")
    path.write_bytes(path.read_bytes()[:60])
    script = (
        "import sys; from pathlib import Path; from tag2mask.io.images import find_unreadable;"
        "print(len(find_unreadable([Path(sys.argv[1])])))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_images_of_all_folders_are_listed_sorted_without_hidden_ones(tmp_path):
    expected = ["B/ü 2.JPG", "a.png", "b/c/日本.jpeg", "b/é.tif"]
    for name in [*expected, ".hidden.png", ".cache/a.png", "notes.txt", "b/.DS_Store"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == expected


def test_linked_folders_are_visited_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "b.png").write_bytes(b"")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "data")
    listed = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path / "data")]
    assert listed == ["data/b.png", "data/images/a.png"]


def test_a_missing_folder_and_a_name_that_is_not_utf8_are_rejected(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    try:
        (tmp_path / "caf\udce9.jpg").write_bytes(b"")  # Latin-1 on the disk
    except OSError:
        pytest.skip("this file system accepts UTF-8 names only")
    with pytest.raises(DataError, match="not UTF-8"):
        list_images(tmp_path)


def test_unreadable_files_are_found_without_decoding_complete_ones(tmp_path, monkeypatch):
    complete = [_save(_noise(), tmp_path / name) for name in ("a.jpg", "b.png")]
    truncated_jpeg, truncated_png, text = (tmp_path / name for name in ("c.jpg", "d.png", "e.jpg"))
    truncated_jpeg.write_bytes(complete[0].read_bytes()[:-200])
    truncated_png.write_bytes(complete[1].read_bytes()[:-200])
    text.write_text("no image")
    trailer = tmp_path / "f.jpg"
    trailer.write_bytes(complete[0].read_bytes() + b"camera maker's data")
    decoded = []
    monkeypatch.setattr(
        "tag2mask.io.images.read_image", lambda path: decoded.append(path) or read_image(path)
    )
    reasons = find_unreadable([*complete, truncated_jpeg, truncated_png, text, trailer])
    assert list(reasons) == [truncated_jpeg, truncated_png, text]
    assert all(reasons.values())
    assert not set(complete) & set(decoded)


def test_a_thorough_check_finds_damage_in_the_middle(tmp_path):
    path = _save(_noise(), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # the checksum of the pixels fails
    path.write_bytes(content)
    assert find_unreadable([path]) == {}
    assert list(find_unreadable([path], thorough=True)) == [path]
