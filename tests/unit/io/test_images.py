import io

import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.io.images import find_unreadable, list_images, read_image, rgb_from_pil
from tag2mask.io.masks import read_indices, read_mask, renumber, save_mask


def _save(array, path, **options):
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path, **options)
    return path


def _noise(height=40, width=60):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_rgb_image_is_read_as_it_is_and_writable(tmp_path):
    image = read_image(_save(_noise(), tmp_path / "a.png"))
    np.testing.assert_array_equal(image, _noise())
    assert image.flags.writeable


# Where the top-left pixel of the stored file belongs in the upright image, by the EXIF standard.
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
    assert upright[corner].tolist() == [250, 10, 20]
    assert upright.sum() == 280


def test_broken_exif_leaves_the_image_as_stored(tmp_path):
    path = _save(_noise(), tmp_path / "a.png", exif=b"not a TIFF header")
    np.testing.assert_array_equal(read_image(path), _noise())


def test_gray_image_has_three_equal_channels(tmp_path):
    image = read_image(_save([[0, 128, 255]], tmp_path / "a.png"))
    np.testing.assert_array_equal(image, [[[0] * 3, [128] * 3, [255] * 3]])


def test_transparent_pixels_show_white_paper(tmp_path):
    image = read_image(_save([[[10, 20, 30, 255], [10, 20, 30, 0]]], tmp_path / "a.png"))
    np.testing.assert_array_equal(image, [[[10, 20, 30], [255, 255, 255]]])
    half = read_image(_save([[[100, 100], [0, 51]]], tmp_path / "b.png"))  # gray and alpha
    # 100 * 100/255 + 255 * 155/255 = 194.2; 0 + 255 * 204/255 = 204
    np.testing.assert_allclose(half[0, :, 0], [194, 204], atol=1)


def test_palette_image_keeps_colors_and_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1]], dtype=np.uint8))
    picture.putpalette([200, 100, 50, 1, 2, 3])
    picture.save(tmp_path / "a.png")
    picture.save(tmp_path / "b.png", transparency=1)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[200, 100, 50], [1, 2, 3]])
    np.testing.assert_array_equal(read_image(tmp_path / "b.png")[0], [[200, 100, 50], [255] * 3])


def test_sixteen_bit_gray_keeps_its_range(tmp_path):
    Image.fromarray(np.array([[0, 257 * 100, 65_535]], dtype=np.uint16)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 1], [0, 100, 255])


@pytest.mark.parametrize("value", [-1, 65_536])
def test_pixels_beyond_sixteen_bits_are_rejected(tmp_path, value):
    Image.fromarray(np.array([[0, value]], dtype=np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="beyond 16 bits"):
        read_image(tmp_path / "a.tif")


def test_cmyk_image_becomes_rgb(tmp_path):
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    cyan.save(tmp_path / "a.jpg", quality=95)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [0, 255, 255], atol=4)


def test_one_bit_image_is_black_and_white(tmp_path):
    Image.fromarray(np.array([[True, False]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0, :, 2], [255, 0])


def test_image_in_memory_is_converted_like_a_file():
    np.testing.assert_array_equal(
        rgb_from_pil(Image.new("RGBA", (1, 1), (0, 0, 0, 0))), [[[255] * 3]]
    )


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "truncated", "float"])
def test_unreadable_image_is_rejected_by_name(tmp_path, kind):
    path = tmp_path / ("é.tif" if kind == "float" else "é.jpg")
    if kind == "float":
        Image.fromarray(np.zeros((2, 2), dtype=np.float32)).save(path)
    elif kind != "missing":
        stream = io.BytesIO()
        Image.fromarray(_noise()).save(stream, "JPEG")
        whole = stream.getvalue()
        content = {"empty": b"", "text": b"no image", "truncated": whole[: len(whole) // 2]}
        path.write_bytes(content[kind])
    with pytest.raises(DataError, match=r"é\.(jpg|tif)") as problem:
        read_image(path)
    assert "\n" not in str(problem.value)


def test_palette_and_gray_masks_give_the_same_indices(tmp_path):
    indices = np.array([[0, 1, 2, 255]], dtype=np.uint8)
    picture = Image.fromarray(indices)
    picture.save(tmp_path / "gray.png")
    picture.putpalette([7] * 768)
    picture.save(tmp_path / "palette.png")
    Image.fromarray(indices.astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("gray", "palette", "wide"):
        mask = read_mask(tmp_path / f"{name}.png", 2)
        np.testing.assert_array_equal(mask, indices)
        assert mask.dtype == np.uint8


def test_mask_value_outside_the_classes_is_named_with_its_file(tmp_path):
    path = _save([[0, 1, 3, 255]], tmp_path / "cow.png")
    with pytest.raises(DataError, match=r"cow\.png: pixel value 3 is no class"):
        read_mask(path, 2)
    assert read_mask(path, 3).max() == 255


def test_wide_mask_value_does_not_wrap_around(tmp_path):
    Image.fromarray(np.array([[0, 257]], dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="pixel value 257"):
        read_mask(tmp_path / "a.png", 2)


def test_color_mask_is_rejected(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: is a RGB color image"):
        read_mask(_save(_noise(), tmp_path / "a.png"), 2)


def test_mask_of_another_size_is_rejected_with_both_sizes(tmp_path):
    path = _save(np.zeros((2, 3)), tmp_path / "a.png")
    assert read_mask(path, 1, (2, 3)).shape == (2, 3)
    with pytest.raises(DataError, match="mask is 3x2 px, its image 2x3 px"):
        read_mask(path, 1, (3, 2))


def test_broken_or_missing_mask_is_rejected(tmp_path):
    (tmp_path / "a.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"a\.png"):
        read_mask(tmp_path / "a.png", 1)
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_mask(tmp_path / "b.png", 1)


def test_renumber_follows_the_chosen_order_and_ignores_the_rest():
    table = renumber(("cat", "cow", "dog"), ("dog", "cat"))
    np.testing.assert_array_equal(table[[0, 1, 2, 3, 4, 254, 255]], [0, 2, 255, 1, 255, 255, 255])


def test_images_are_listed_sorted_from_all_folders_but_hidden_ones(tmp_path):
    wanted = ["B/ü 2.JPG", "a.png", "b/c/日本.jpeg", "b/é.tif"]
    for name in [*wanted, ".hidden.png", ".cache/a.png", "notes.txt", "b/.DS_Store"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)] == wanted


def test_linked_folders_are_entered_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.png").write_bytes(b"")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(tmp_path / "real")
    (tmp_path / "data" / "b.png").write_bytes(b"")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "data")
    found = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path / "data")]
    assert found == ["data/b.png", "data/images/a.png"]


def test_listing_a_missing_folder_or_a_foreign_name_is_rejected(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        list_images(tmp_path / "nowhere")
    try:
        (tmp_path / "caf\udce9.jpg").write_bytes(b"")  # Latin-1 on the disk
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    with pytest.raises(DataError, match="not UTF-8"):
        list_images(tmp_path)


def test_unreadable_files_are_found_without_decoding_the_whole_ones(tmp_path, monkeypatch):
    whole = [_save(_noise(), tmp_path / name) for name in ("a.jpg", "b.png")]
    cut_jpeg, cut_png, text = (tmp_path / name for name in ("c.jpg", "d.png", "e.jpg"))
    cut_jpeg.write_bytes(whole[0].read_bytes()[:-200])
    cut_png.write_bytes(whole[1].read_bytes()[:-200])
    text.write_text("no image")
    trailer = tmp_path / "f.jpg"
    trailer.write_bytes(whole[0].read_bytes() + b"camera maker's data")
    decoded = []
    monkeypatch.setattr(
        "tag2mask.io.images.read_image", lambda path: decoded.append(path) or read_image(path)
    )
    found = find_unreadable([*whole, cut_jpeg, cut_png, text, trailer])
    assert list(found) == [cut_jpeg, cut_png, text]
    assert all(found.values())
    assert not set(whole) & set(decoded)


def test_thorough_search_finds_damage_in_the_middle(tmp_path):
    path = _save(_noise(), tmp_path / "a.png")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF  # the checksum of the pixels fails
    path.write_bytes(content)
    assert find_unreadable([path]) == {}
    assert list(find_unreadable([path], thorough=True)) == [path]


def test_indices_are_read_unchecked(tmp_path):
    values = np.array([[0, 7, 255], [200, 1, 2]], dtype=np.uint8)
    save_mask(values, tmp_path / "palette.png")
    Image.fromarray(values).save(tmp_path / "gray.png")
    Image.fromarray(values.astype(np.uint16) * 2).save(tmp_path / "deep.png")
    for name, factor in (("palette", 1), ("gray", 1), ("deep", 2)):
        found = read_indices(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(found, values.astype(int) * factor)
    Image.new("RGB", (3, 2)).save(tmp_path / "color.png")
    with pytest.raises(DataError, match=r"color\.png: is a RGB"):
        read_indices(tmp_path / "color.png")
