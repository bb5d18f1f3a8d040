import json
from pathlib import Path

import numpy as np
import pytest

from tag2mask.cli.main import run
from tag2mask.errors import DataError, RecipeError, RunError, Tag2MaskError
from tag2mask.io.masks import read_mask


@pytest.fixture
def corrected(tmp_path, monkeypatch) -> Path:
    """A COCO file as a tool exports it, beside which commands are typed."""
    monkeypatch.chdir(tmp_path)
    content = {
        "images": [{"id": 7, "file_name": "lane/a.jpg", "width": 3, "height": 2}],
        "categories": [{"id": 4, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 4, "segmentation": [[1, 0, 3, 0, 3, 1, 1, 1]]}
        ],
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    return path


def test_masks_are_written_for_training(corrected, capsys):
    run(["import", "a.json", "--format", "coco", "--out", "DATA/masks"])
    assert capsys.readouterr().out == "1 masks imported to DATA/masks\n"
    assert read_mask(Path("DATA/masks/lane/a.png"), 1).tolist() == [[0, 1, 1], [0, 0, 0]]
    assert json.loads(Path("DATA/masks/classes.json").read_text())["classes"] == ["cat"]


def test_next_batch_is_added(corrected):
    run(["import", "a.json", "--format", "coco", "--out", "masks"])
    content = json.loads(corrected.read_text())
    content["images"][0]["file_name"] = "b.jpg"
    corrected.write_text(json.dumps(content))
    run(["import", "a.json", "--format", "coco", "--out", "masks", "--add"])
    assert np.array_equal(read_mask(Path("masks/b.png"), 1), read_mask(Path("masks/lane/a.png"), 1))


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("a.json --format coco --out .", RunError, "exists already"),
        ("b.json --format coco --out masks", DataError, "b.json: no such file or folder"),
        ("a.json --format cocoa --out masks", RecipeError, "Did you mean 'coco'"),
        ("a.json --format cvat --out masks", DataError, "is no zip file"),
        ("a.json --format voc_png --out masks", DataError, "reads a folder of PNG masks"),
        ("a.json --format geojson --out masks", DataError, "cannot be imported"),
        ("a.json --format coco --out masks --images typo", DataError, "typo: no such folder"),
        ("a.json --format coco --out a.json --add", RunError, "exists already"),
        ("a.json --format coco", Tag2MaskError, "missing option '--out'"),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(corrected, line, kind, words):
    content = corrected.read_bytes()
    with pytest.raises(kind, match=words) as caught:
        run(["import", *line.split()])
    assert "\n" not in str(caught.value)
    assert [path.name for path in corrected.parent.iterdir()] == ["a.json"]
    assert corrected.read_bytes() == content
