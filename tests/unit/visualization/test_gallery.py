"""The gallery: overlays of hand-made masks, and the page read as a browser reads it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.mask_folder import append_scores, describe_classes, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.io.palette import overlay_palette
from tag2mask.types import Image
from tag2mask.visualization.gallery import (
    EDGE,
    draw_overlay,
    mask_layer,
    overlay_path,
    write_gallery,
)

CLASSES = ("cat", "dog")


def read(name: str) -> Image:
    if name == "torn":
        raise DataError("torn")
    return np.full((20, 30, 3), 10, dtype=np.uint8)


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    write_classes(tmp_path, describe_classes(CLASSES, "tags", {}))
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:10, 5:10] = 2
    for position, name in enumerate(("lane 1/a#", "b</script>", "torn")):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_mask(mask, path)
        append_scores(tmp_path, {"name": name, "uncertainty": 0.25 * position})
    return tmp_path


def page_data(page: Path) -> dict[str, object]:
    text = page.read_text(encoding="utf-8")
    found = re.search(r"^const data = (\{.*\});$", text, re.MULTILINE)
    assert found is not None
    data: dict[str, object] = json.loads(found[1])
    return data


def test_object_is_tinted_and_outlined_and_background_stays() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:12, 5:12] = 2
    overlay = draw_overlay(read("a"), mask)
    color = overlay_palette()[2]
    assert overlay[0, 0].tolist() == [10, 10, 10]
    assert overlay[5, 5].tolist() == color.tolist()  # outline, one pixel wide
    assert tuple(overlay[4, 5]) == EDGE
    np.testing.assert_allclose(overlay[8, 8], 0.55 * 10 + 0.45 * color, atol=0.6)


def test_layer_over_the_image_is_the_overlay() -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:12, 5:12] = 2
    mask[12:16, 5:12] = 255
    layer = mask_layer(mask).astype(float)
    share = layer[..., 3:] / 255
    mixed = read("a") * (1 - share) + layer[..., :3] * share
    np.testing.assert_allclose(mixed, draw_overlay(read("a"), mask), atol=1.5)


def test_two_classes_that_touch_are_both_outlined() -> None:
    mask = np.repeat(np.array([[1, 2]], dtype=np.uint8), 10, axis=1).repeat(10, axis=0)
    overlay = draw_overlay(np.zeros((10, 20, 3), dtype=np.uint8), mask)
    assert overlay[5, 9].tolist() == overlay_palette()[1].tolist()
    assert overlay[5, 10].tolist() == overlay_palette()[2].tolist()


def test_large_images_are_shrunk() -> None:
    image = np.zeros((600, 1280, 3), dtype=np.uint8)
    assert draw_overlay(image, image[..., 0]).shape == (300, 640, 3)


def test_page_lists_every_overlay_with_its_class_and_uncertainty(masks: Path) -> None:
    page = write_gallery(masks, ["lane 1/a#", "b</script>", "torn"], read)
    data = page_data(page)
    assert data["classes"] == ["cat", "dog"]
    area = round(25 / 600, 4)
    assert data["images"] == [
        ["b</script>", "b%3C/script%3E.jpg", 0.25, {"1": area}],
        ["lane 1/a#", "lane%201/a%23.jpg", 0.0, {"1": area}],
    ]  # the image that cannot be read is left out
    text = page.read_text(encoding="utf-8")
    assert text.count("</script>") == 1  # a name does not end the script
    assert not re.search(r"https?://|@import|url\(|<link", text)
    with PILImage.open(overlay_path(masks, "lane 1/a#")) as picture:
        assert (picture.format, picture.size) == ("JPEG", (30, 20))


def test_a_second_start_draws_only_missing_and_outdated_overlays(masks: Path) -> None:
    names = ["lane 1/a#", "b</script>"]
    write_gallery(masks, names, read)
    drawn: list[str] = []

    def read_and_note(name: str) -> Image:
        drawn.append(name)
        return read(name)

    write_gallery(masks, names, read_and_note)
    assert drawn == []
    overlay_path(masks, names[0]).unlink()
    later = overlay_path(masks, names[1]).stat().st_mtime + 10
    os.utime(masks / f"{names[1]}.png", (later, later))  # the mask was made again
    page = write_gallery(masks, names, read_and_note)
    assert drawn == names
    assert len(page_data(page)["images"]) == 2
