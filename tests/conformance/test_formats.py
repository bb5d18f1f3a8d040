"""Every format writes what it promises, and gives back what it wrote."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask import plugins
from tag2mask.errors import DataError
from tag2mask.formats.base import Format, MaskCollection, MaskedImage
from tag2mask.formats.exchange import export_masks, import_masks
from tag2mask.io.mask_folder import read_classes
from tag2mask.io.masks import read_mask
from tag2mask.io.palette import voc_palette
from tag2mask.types import Mask

CLASSES = ("Kühe", "two words", "dog")
FORMATS = plugins.available("formats")


def random_masks(seed: int) -> Iterator[tuple[str, Mask]]:
    """Masks of any topology: specks, holes, parts that touch at corners, one class, nothing."""
    rng = np.random.default_rng(seed)
    for index, density in enumerate((0.0, 0.2, 0.5, 0.8, 1.0)):
        height, width = rng.integers(1, 24, 2)
        mask = rng.integers(1, 4, (height, width)) * (rng.random((height, width)) < density)
        yield f"lane {seed}/{index}é" if index % 2 else f"{seed}_{index}", mask.astype(np.uint8)
    coarse = rng.integers(0, 4, (4, 5)).astype(np.uint8)
    yield f"coarse_{seed}", coarse.repeat(9, 0).repeat(7, 1)


def make_collection(masks: dict[str, Mask], folder: Path) -> MaskCollection:
    images = []
    for name, mask in sorted(masks.items()):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PILImage.fromarray(np.zeros((*mask.shape, 3), dtype=np.uint8)).save(path)
        images.append(
            MaskedImage(
                name=name,
                file_name=f"{name}.png",
                width=mask.shape[1],
                height=mask.shape[0],
                load=lambda mask=mask: mask,
                image_path=path,
                scores=dict.fromkeys(CLASSES, 0.5),
            )
        )
    palette = tuple(tuple(color) for color in voc_palette()[: len(CLASSES) + 1].tolist())
    return MaskCollection(CLASSES, palette, tuple(images), "tags", {"run": "RUN"})


def gives_masks_back(kind: type[Format]) -> bool:
    return kind.read is not Format.read


@pytest.fixture(scope="module")
def masks() -> dict[str, Mask]:
    return {name: mask for seed in range(12) for name, mask in random_masks(seed)}


@pytest.mark.parametrize("name", FORMATS)
def test_imported_masks_equal_the_exported_ones(name, masks, tmp_path):
    kind = plugins.load("formats", name)
    out = tmp_path / f"out{kind.suffix}"
    export_masks(make_collection(masks, tmp_path / "images"), name, out)
    assert out.is_file() if kind.suffix else out.is_dir()
    if not gives_masks_back(kind):
        with pytest.raises(DataError, match="cannot be imported"):
            import_masks(out, name, tmp_path / "back")
        return
    assert import_masks(out, name, tmp_path / "back") == len(masks)
    assert tuple(read_classes(tmp_path / "back")["classes"]) == CLASSES
    for image, mask in masks.items():
        found = read_mask(tmp_path / "back" / f"{image}.png", len(CLASSES))
        assert np.array_equal(found, mask), image


@pytest.mark.parametrize("name", FORMATS)
def test_output_can_be_moved(name, masks, tmp_path):
    """It contains no path of the folder that it was written in."""
    kind = plugins.load("formats", name)
    few = dict(list(masks.items())[:3])
    kind().write(make_collection(few, tmp_path / "images"), tmp_path / f"out{kind.suffix}")
    written = [path for path in tmp_path.glob("out*/**/*") if path.is_file()]
    for path in written or [tmp_path / f"out{kind.suffix}"]:
        assert str(tmp_path / "out").encode() not in path.read_bytes()


@pytest.mark.parametrize("name", [n for n in FORMATS if n != "voc_png"])
@pytest.mark.parametrize("content", ["", "{", "[]", "not a mask"])
def test_input_that_is_not_of_the_format_is_one_line(name, content, tmp_path):
    kind = plugins.load("formats", name)
    (tmp_path / "file").write_text(content)
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file", tmp_path / "folder"):
        with pytest.raises(DataError) as caught:
            import_masks(path, name, tmp_path / "back")
        assert "\n" not in str(caught.value)
    assert kind is not None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
