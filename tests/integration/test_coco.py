"""Data in COCO format through the command line: checked, learned from, refused."""

import json

import pytest
from PIL import Image
from tests.unit.data.coco_file import annotation, document, square, usual, write_data

from tag2mask.cli.main import main
from tag2mask.config.recipe import available_recipes, load_recipe
from tag2mask.data.coco import COCO


def test_check_says_how_to_train(tmp_path, capsys):
    write_data(tmp_path)
    assert main(["check", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "3 images, read as 'coco'" in said
    assert f"ready: tag2mask train {tmp_path} --out" in said


@pytest.mark.parametrize(
    "found",
    [
        {key: value for key, value in usual().items() if key != "categories"},
        document([annotation(1, 77, 1, [])]),
        document([annotation(1, 2**70, 1, [])]),
        document([annotation(1, 9, 5, [])]),
        document([annotation(1, 9, 1, [[1.0, 2.0, 3.0]])]),
        document([annotation(1, 9, 1, [["1", "2", "3", "4", "5", "6"]])]),
        document([annotation(1, 9, 1, [square(0, 0, 2e9, 2e9)])]),
        document([annotation(1, 9, 1, {"counts": [3, 3], "size": [2, 3]})]),
        document([annotation(1, 9, 1, {"counts": [2**40, 3], "size": [6, 8]})]),
        json.dumps(usual())[:900],
    ],
    ids=[
        "categories", "image", "id", "category", "odd", "text", "far", "runs", "overflow", "cut",
    ],
)  # fmt: skip
def test_bad_files_are_one_line_and_exit_code_2(tmp_path, capsys, found):
    path = write_data(tmp_path)
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    assert main(["check", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {path}")


def test_an_outline_outside_its_image_is_a_warning(tmp_path, capsys):
    found = usual()
    found["annotations"].append(annotation(7, 9, 1, [square(20, 20, 30, 30)]))
    path = write_data(tmp_path, found)
    assert main(["check", str(tmp_path)]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert f"{path}: 1 outline outside the image, so a tag without pixels" in said


def test_bad_images_are_one_line_and_exit_code_2(tmp_path, capsys):
    write_data(tmp_path)
    images = tmp_path / "train2014"
    Image.new("RGB", (3, 3)).save(images / "COCO_train2014_000000000025.jpg")
    assert main(["check", str(tmp_path)]) == 2
    assert "the image is 3x3 px, but 8x6 px by" in capsys.readouterr().err
    (images / "COCO_train2014_000000000025.jpg").unlink()
    assert main(["check", str(tmp_path)]) == 2
    assert "1 image not in" in capsys.readouterr().err


@pytest.mark.parametrize("name", [name for name in available_recipes() if "/coco_" in name])
def test_recipes_for_coco_read_it(tmp_path, name):
    data = load_recipe(name).data
    assert data.name == "coco"
    write_data(tmp_path)
    source = COCO(data.model_copy(update={"root": tmp_path}), "train")
    assert len(source) == 2
