import numpy as np
from PIL import Image

from tag2mask.data.checks.inspection import inspect_image
from tag2mask.data.checks.other_files import (
    mask_like_advice,
    other_file_advice,
    unreadable_advice,
)
from tag2mask.data.index import DatasetIndex


def test_each_kind_of_file_has_one_line(tmp_path):
    (tmp_path / "masks").mkdir()
    for name in (
        "a.jpg", "tags.csv", "README.md", "masks/c.txt", ".DS_Store", "b.mp4", "c.mov", "d.txt",
    ):  # fmt: skip
        (tmp_path / name).touch()
    lines = list(other_file_advice(tmp_path, [tmp_path / "masks"]))
    assert [(line.severity, line.names) for line in lines] == [
        ("warning", ("b.mp4", "c.mov")),
        ("note", ("d.txt",)),
    ]
    assert "ffmpeg -i b.mp4" in lines[0].message


def _index(tmp_path, names):
    images = {name.rpartition(".")[0]: tmp_path / name for name in names}
    index = DatasetIndex("here", images, dict.fromkeys(images, ()), {})
    return index, {name: inspect_image(index, name) for name in images}


def test_all_heic_images_share_a_line_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr("tag2mask.data.checks.other_files.can_read_heif", lambda: False)
    monkeypatch.setattr("tag2mask.io.heif.can_read_heif", lambda: False)
    for name in ("a.heic", "b.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    for number in range(12):
        (tmp_path / f"{number}.jpg").write_bytes(b"text")
    names = ["a.heic", "b.heic", *(f"{number}.jpg" for number in range(12))]
    heic, *others = unreadable_advice(*_index(tmp_path, names), strict=False)
    assert (heic.kind, heic.names) == ("heic", ("a", "b"))
    assert "pip install 'tag2mask[heic]'" in heic.message
    assert len(others) == 11
    assert others[-1].message == "and 2 more unreadable images"
    assert {name for line in others for name in line.names} == {str(number) for number in range(12)}
    assert all(
        line.severity == "problem"
        for line in unreadable_advice(*_index(tmp_path, names), strict=True)
    )


def test_masks_in_and_beside_the_images_are_named(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    for name in ("a.png", "b.png"):
        Image.fromarray(np.eye(20, dtype=np.uint8)).save(tmp_path / name)
    inside, beside = mask_like_advice(*_args(tmp_path, ["a.jpg", "b.png"]))
    assert inside.names == ("b",)
    assert beside.names == ("a.png",)


def _args(root, names):
    index, inspected = _index(root, names)
    return index, root, inspected
