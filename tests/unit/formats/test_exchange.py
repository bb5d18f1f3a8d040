from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tests.unit.formats.conftest import CLASSES, drawn_masks

from tag2mask.errors import DataError, RunError, UnknownPluginError
from tag2mask.formats.base import Format, MaskCollection, NamedMask, ReadMasks
from tag2mask.formats.collection import open_masks
from tag2mask.formats.exchange import export_masks, import_masks
from tag2mask.io.mask_folder import read_classes
from tag2mask.io.masks import read_mask, save_mask


class Failing(Format):
    """Fails when it has written a part."""

    def write(self, masks: MaskCollection, out: Path) -> None:
        out.mkdir()
        (out / "half").write_text("half")
        raise DataError("the second mask is broken")


class Leaving(Format):
    """Reads an image whose name leads out of the folder."""

    suffix = ".txt"

    def write(self, masks: MaskCollection, out: Path) -> None:
        out.write_text("one file")

    def read(self, path: Path, images: Path | None = None) -> ReadMasks:
        def read() -> Iterator[NamedMask]:
            yield NamedMask("../outside", np.zeros((2, 2), dtype=np.uint8))

        return ReadMasks(("cat",), read())


def test_exported_masks_come_back(masks: MaskCollection, tmp_path: Path) -> None:
    export_masks(masks, "voc_png", tmp_path / "new" / "out")
    count = import_masks(tmp_path / "new" / "out", "voc_png", tmp_path / "back" / "masks")
    assert count == len(masks) == 5
    described = read_classes(tmp_path / "back" / "masks")
    assert described["classes"] == list(CLASSES)
    assert described["class_source"] == "corrected"
    assert described["settings"]["format"] == "voc_png"
    for name, mask in drawn_masks().items():
        assert np.array_equal(read_mask(tmp_path / "back" / "masks" / f"{name}.png", 2), mask)
    assert [path.name for path in tmp_path.glob("*/.*")] == []  # no temporary folder is left


def test_existing_output_is_refused_and_kept(masks: MaskCollection, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(RunError, match="mine: exists already; choose another path or remove it"):
        export_masks(masks, "voc_png", tmp_path / "mine")
    export_masks(masks, "voc_png", tmp_path / "out")
    with pytest.raises(RunError, match="exists already"):
        import_masks(tmp_path / "out", "voc_png", tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"


def test_failed_export_leaves_nothing(masks: MaskCollection, tmp_path: Path) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DataError, match="second mask is broken"):
        export_masks(masks, "failing", tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before


def test_image_name_that_leaves_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("")
    with pytest.raises(DataError, match=r"'\.\./outside' leaves the output folder"):
        import_masks(tmp_path / "in.txt", "leaving", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


def test_format_of_one_file_needs_its_suffix(masks: MaskCollection, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"writes one \.txt file; use --out .*out\.txt"):
        export_masks(masks, "leaving", tmp_path / "out")
    export_masks(masks, "leaving", tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text() == "one file"


def test_format_without_way_back_and_missing_input_are_named(
    masks: MaskCollection, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"typo: no such file or folder"):
        import_masks(tmp_path / "typo", "voc_png", tmp_path / "out")
    with pytest.raises(DataError, match="cannot be imported"):
        import_masks(tmp_path, "failing", tmp_path / "out")
    with pytest.raises(UnknownPluginError, match=r"unknown format 'vocpng'\. Did you mean"):
        export_masks(masks, "vocpng", tmp_path / "out")


def test_masks_are_added_to_a_folder_whose_classes_keep_their_values(
    write_masks: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "DATA" / "masks"
    out.mkdir(parents=True)
    (out / "classes.json").write_text('{"classes": ["cow", "two words"]}')
    save_mask(np.array([[1, 2]], dtype=np.uint8), out / "earlier.png")
    export_masks(open_masks(write_masks()), "coco", tmp_path / "a.json")
    import_masks(tmp_path / "a.json", "coco", out, add=True)
    assert read_classes(out)["classes"] == ["cow", "two words", "cat"]
    assert read_mask(out / "earlier.png", 3).tolist() == [[1, 2]]
    values = np.array([0, 3, 2], dtype=np.uint8)
    for name, mask in drawn_masks().items():
        assert np.array_equal(read_mask(out / f"{name}.png", 3), values[mask])
    with pytest.raises(RunError, match="already has a mask of full, lane1/ring, lane2/parts and 2"):
        import_masks(tmp_path / "a.json", "coco", out, add=True)
    assert sorted(path.name for path in out.parent.iterdir()) == ["masks"]


def test_masks_get_the_names_of_images_again(
    write_masks: Callable[..., Path], tmp_path: Path
) -> None:
    export_masks(open_masks(write_masks()).flattened(), "coco", tmp_path / "flat.json")
    import_masks(tmp_path / "flat.json", "coco", tmp_path / "back", tmp_path / "images")
    for name, mask in drawn_masks().items():
        assert np.array_equal(read_mask(tmp_path / "back" / f"{name}.png", 2), mask)
    (tmp_path / "images" / "square.jpg").unlink()
    with pytest.raises(DataError, match="images: 'square' is no image of this folder"):
        import_masks(tmp_path / "flat.json", "coco", tmp_path / "new", tmp_path / "images")
    for folder in ("lane1", "lane2"):
        (tmp_path / "images" / folder / "square.png").write_bytes(b"")
    with pytest.raises(DataError, match="'square' could be lane1/square, lane2/square"):
        import_masks(tmp_path / "flat.json", "coco", tmp_path / "new", tmp_path / "images")


def test_two_masks_of_one_name_are_refused(masks: MaskCollection, tmp_path: Path) -> None:
    export_masks(masks, "coco", tmp_path / "a.json")
    text = (tmp_path / "a.json").read_text().replace("none.jpg", "full.png")
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match="two images are named 'full'"):
        import_masks(tmp_path / "a.json", "coco", tmp_path / "out")


def test_folder_without_masks_is_not_imported(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "classes.json").write_text('{"classes": ["cat"]}')
    with pytest.raises(DataError, match="contains no image with a mask"):
        import_masks(tmp_path / "in", "voc_png", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_imported_masks_can_be_exported_again(
    write_masks: Callable[..., Path], tmp_path: Path
) -> None:
    export_masks(open_masks(write_masks()), "voc_png", tmp_path / "a")
    import_masks(tmp_path / "a", "voc_png", tmp_path / "b")
    again = open_masks(tmp_path / "b", tmp_path / "images")
    export_masks(again, "voc_png", tmp_path / "c")
    assert read_classes(tmp_path / "c")["class_source"] == "corrected"


@pytest.mark.parametrize(
    ("class_names", "message"),
    [
        ((), "0 classes; a mask can store 1 to 254"),
        (tuple(f"c{k}" for k in range(255)), "255 classes; a mask can store 1 to 254"),
        (("cat", "cat"), "two classes are named cat"),
        (("cat", " "), "the name of a class is empty"),
        (("a\nerror: b",), r"class 'a\\nerror: b' has a control character"),
    ],
)
def test_classes_that_no_folder_can_have_are_refused(
    tmp_path: Path, class_names: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    read = ReadMasks(class_names, iter(()))
    monkeypatch.setattr(Leaving, "read", lambda self, path, images=None: read)
    monkeypatch.setattr("tag2mask.plugins.load", lambda package, name: Leaving)
    with pytest.raises(DataError, match=message):
        import_masks(tmp_path / "a.txt", "leaving", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["", "a\0b", "folder/", "\ud800"])
def test_names_that_no_file_can_have_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").touch()
    read = ReadMasks(("cat",), iter((NamedMask(name, np.zeros((2, 2), dtype=np.uint8)),)))
    monkeypatch.setattr(Leaving, "read", lambda self, path, images=None: read)
    monkeypatch.setattr("tag2mask.plugins.load", lambda package, name: Leaving)
    with pytest.raises(DataError, match="is no name of an image file"):
        import_masks(tmp_path / "a.txt", "leaving", tmp_path / "out")
