from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tag2mask.errors import DataError
from tag2mask.io import image_inputs
from tag2mask.io.image_inputs import ignored_files, input_images, named_images
from tag2mask.io.masks import save_mask


def _picture(path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)


def test_images_and_folders_of_images_are_returned(tmp_path):
    _picture(tmp_path / "a.png")
    _picture(tmp_path / "b.jpg")
    (tmp_path / "clip.mp4").touch()
    assert [path.name for path in input_images(tmp_path)] == ["a.png", "b.jpg"]
    assert input_images(tmp_path / "b.jpg") == [tmp_path / "b.jpg"]
    (tmp_path / "notes.txt").touch()
    (line,) = ignored_files([tmp_path, tmp_path / "b.jpg"])
    assert line.startswith(f"{tmp_path}: 1 video (clip.mp4); extract images first")
    (tmp_path / "a.png").rename(tmp_path / "download")
    assert input_images(tmp_path / "download") == [tmp_path / "download"]


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("clip.mp4", r"clip\.mp4: a video, not an image; .*ffmpeg -i clip\.mp4"),
        ("more.zip", r"more\.zip: an archive, not an image; unpack"),
        ("tags.csv", r"tags\.csv: a text file, not an image; give images"),
        ("thing.xyz", r"thing\.xyz: not an image"),
    ],
)
def test_a_file_that_is_no_image_says_what_to_do(tmp_path, name, line):
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(DataError, match=line):
        input_images(tmp_path / name)
    with pytest.raises(DataError, match=rf"no images in this folder, but 1 .*\({name}\)"):
        input_images(tmp_path)


def test_an_address_of_the_web_is_not_a_missing_file():
    line = r"^https://example\.org/a\.jpg: a web address; .*curl -LO https://example\.org/a\.jpg$"
    with pytest.raises(DataError, match=line):
        input_images(Path("https://example.org/a.jpg"))


def test_a_folder_of_masks_is_rejected(tmp_path):
    for index in range(12):
        mask = np.full((20, 20), index % 3, dtype=np.uint8)
        mask[:5] = 255
        save_mask(mask, tmp_path / f"{index}.png")
    with pytest.raises(DataError, match="contains masks, not images"):
        input_images(tmp_path)
    _picture(tmp_path / "0.png")  # one picture makes it a folder of images
    assert len(input_images(tmp_path)) == 12
    (tmp_path / "classes.json").write_text("{}")
    with pytest.raises(DataError, match=r"contains masks.*it has a classes\.json"):
        input_images(tmp_path)


def test_heic_images_alone_need_their_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(image_inputs, "can_read_heif", lambda: False)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic")
    for path in (tmp_path, tmp_path / "a.heic"):
        with pytest.raises(DataError, match=r"HEIC image.*tag2mask\[heic\]"):
            input_images(path)
    _picture(tmp_path / "b.jpg")
    assert len(input_images(tmp_path)) == 2


def test_images_of_one_name_are_rejected(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.jpg.*a\.png.*would all write a\.png"):
        named_images([tmp_path])


def test_missing_path_and_empty_folder_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="gone: no such image or folder"):
        named_images([tmp_path / "gone"])
    with pytest.raises(DataError, match="no images in"):
        named_images([tmp_path])


def test_a_list_names_images_relative_to_its_folder(
    image_folder: Callable[[], Path], tmp_path: Path
) -> None:
    folder = image_folder()
    listed = tmp_path / "list.txt"
    listed.write_text(f"images/lane1/a.png\n\n{folder}/lane2/a.png\nimages/gone.png\n")
    images = named_images([], listed)
    assert list(images) == ["lane1/a", "lane2/a", "gone"]
    assert images["lane1/a"].is_file()


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(DataError, match="names no image"):
        named_images([], tmp_path / "list.txt")
    with pytest.raises(DataError, match="cannot be read"):
        named_images([], tmp_path / "gone.txt")
