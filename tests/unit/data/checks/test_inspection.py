from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.data.checks.inspection import inspect_image
from tag2mask.data.index import DatasetIndex
from tag2mask.io.images import read_image
from tag2mask.io.masks import save_mask


def _inspect(path: Path, mask: Path | None = None):
    masks = {} if mask is None else {"a": mask}
    index = DatasetIndex("here", {"a": path}, {"a": ("cat",)}, masks)
    return inspect_image(index, "a")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_size_and_fingerprint_are_those_of_the_upright_image(tmp_path, suffix, orientation):
    rough = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((200, 140), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / f"a.{suffix}", exif=exif)
    inspected = _inspect(tmp_path / f"a.{suffix}")
    upright = read_image(tmp_path / f"a.{suffix}")
    assert inspected.size == (upright.shape[1], upright.shape[0])
    assert inspected.problem is None
    Image.fromarray(upright).save(tmp_path / "upright.png")
    other = _inspect(tmp_path / "upright.png").fingerprint
    assert float(inspected.fingerprint.gray @ other.gray) > 0.99
    assert (inspected.fingerprint.bits != other.bits).sum() <= 4


def test_damage_that_only_decoding_finds_is_found(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    for suffix in ("jpg", "png"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(noise).save(path)
        path.write_bytes(path.read_bytes()[:9000])
        assert "cannot be read as an image" in _inspect(path).problem
        assert _inspect(path).fingerprint is None
    assert "cannot be read" in _inspect(tmp_path / "missing.jpg").problem


def test_masks_are_recognized_by_their_few_values(tmp_path):
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[4:, 5:] = 3
    save_mask(mask, tmp_path / "mask.png")
    assert _inspect(tmp_path / "mask.png").is_mask
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert not _inspect(tmp_path / "a.png").is_mask
    Image.fromarray(mask).save(tmp_path / "a.jpg")  # lossy: values are blurred
    assert not _inspect(tmp_path / "a.jpg").is_mask


def test_the_mask_of_an_image_is_checked(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    save_mask(np.eye(20, 30, dtype=np.uint8), tmp_path / "good.png")
    save_mask(np.zeros((20, 30), dtype=np.uint8), tmp_path / "empty.png")
    save_mask(np.zeros((20, 31), dtype=np.uint8), tmp_path / "large.png")
    assert _inspect(tmp_path / "a.png", tmp_path / "good.png")[4:] == (None, True)
    assert _inspect(tmp_path / "a.png", tmp_path / "empty.png")[4:] == (None, False)
    assert "31x20 px" in _inspect(tmp_path / "a.png", tmp_path / "large.png").mask_problem
