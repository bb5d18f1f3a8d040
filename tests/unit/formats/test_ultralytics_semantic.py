"""The layout follows docs.ultralytics.com/datasets/semantic; ultralytics needs torchvision."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image as PILImage
from tests.unit.formats.conftest import drawn_masks

from tag2mask.errors import DataError
from tag2mask.formats.collection import open_masks
from tag2mask.formats.ultralytics_semantic import UltralyticsSemantic


@pytest.fixture
def exported(write_masks: Callable[..., Path], tmp_path: Path) -> Path:
    drawn = {**drawn_masks(), "ignored": np.array([[0, 255, 1]], dtype=np.uint8)}
    (tmp_path / "out").mkdir()
    UltralyticsSemantic().write(open_masks(write_masks(drawn)), tmp_path / "out")
    return tmp_path / "out"


def test_each_image_has_a_gray_mask_of_its_size(exported: Path) -> None:
    content = yaml.safe_load((exported / "data.yaml").read_text("utf-8"))
    assert list(content) == ["train", "val", "masks_dir", "names"]
    assert content["names"] == {0: "background", 1: "cat", 2: "two words"}
    images = sorted((exported / content["train"]).rglob("*.jpg"))
    assert len(images) == len(drawn_masks()) + 1
    for image in images:
        # masks_dir replaces the path component `images`; the stem is the same
        parts = [content["masks_dir"] if part == "images" else part for part in image.parts]
        with PILImage.open(Path(*parts).with_suffix(".png")) as mask, PILImage.open(image) as own:
            assert mask.mode == "L"  # one channel; a palette would be read as colors
            assert mask.size == own.size
            if image.stem == "ignored":
                assert np.asarray(mask).tolist() == [[0, 255, 1]]


def test_other_class_zero_is_refused(exported: Path) -> None:
    (exported / "data.yaml").write_text("names: [road, cat]\nmasks_dir: masks\n")
    with pytest.raises(DataError, match="class 0 is 'road', but must be 'background'"):
        UltralyticsSemantic().read(exported)


def test_value_without_name_is_named(exported: Path) -> None:
    (exported / "data.yaml").write_text("names: [background]\nmasks_dir: masks\n")
    with pytest.raises(DataError, match=r"full\.png: pixel value 2 is no class"):
        list(UltralyticsSemantic().read(exported).masks)
