import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.cli.main import run
from tag2mask.errors import DataError, RecipeError, RunError, Tag2MaskError
from tag2mask.io.mask_folder import append_scores, describe_classes, describe_image, write_classes
from tag2mask.io.masks import save_mask


@pytest.fixture
def masks(tmp_path, monkeypatch) -> Path:
    """A folder of two masks with their images, beside which commands are typed."""
    monkeypatch.chdir(tmp_path)
    write_classes(tmp_path / "masks", describe_classes(["cat", "dog"], "tags", {}))
    for name, value in (("lane/a", 1), ("b", 0)):
        for folder in ("masks", "images"):
            (tmp_path / folder / name).parent.mkdir(parents=True, exist_ok=True)
        image = tmp_path / "images" / f"{name}.jpg"
        PILImage.new("RGB", (3, 2)).save(image)
        save_mask(np.full((2, 3), value, dtype=np.uint8), tmp_path / "masks" / f"{name}.png")
        row = {"name": name, "scores": {"cat": 0.5}, **describe_image(name, image, (2, 3))}
        append_scores(tmp_path / "masks", row)
    return tmp_path


def test_export_says_how_many_masks_and_where(masks, capsys):
    run(["export", "masks", "--format", "coco", "--out", "out/masks.json"])
    assert capsys.readouterr().out == "2 masks exported to out/masks.json\n"
    content = json.loads((masks / "out" / "masks.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["b.jpg", "lane/a.jpg"]


def test_flat_names_and_other_images(masks):
    shutil.move("images", "moved")
    run(["export", "masks", "--format", "yolo_seg", "--out", "out", "--images", "moved", "--flat"])
    assert sorted(path.name for path in Path("out/images/train").iterdir()) == ["a.jpg", "b.jpg"]


def test_most_uncertain_images_are_chosen(masks):
    path = masks / "masks" / "scores.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    uncertain = {"lane/a": 0.1, "b": 0.7}
    for row in rows:
        row["uncertainty"] = uncertain[row["name"]]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run(["export", "masks", "--format", "voc_png", "--out", "out", "--most-uncertain", "1"])
    assert [path.name for path in (masks / "out").rglob("*.png")] == ["b.png"]


def forget_images(folder: Path) -> None:
    (folder / "masks" / "scores.jsonl").unlink()


def lose_images(folder: Path) -> None:
    shutil.rmtree(folder / "images")


def write_output(folder: Path) -> None:
    (folder / "out.json").write_text("mine")


def break_mask(folder: Path) -> None:
    save_mask(np.full((2, 3), 9, dtype=np.uint8), folder / "masks" / "b.png")


def leave(folder: Path) -> None:
    """Change nothing."""


@pytest.mark.parametrize(
    ("line", "before", "kind", "words"),
    [
        ("masks --format coko --out out.json", leave, RecipeError, "Did you mean 'coco'"),
        ("masks --format coco --out out", leave, RunError, "use --out out.json"),
        ("masks --format coco --out out.json", write_output, RunError, "exists already"),
        ("images --format coco --out out.json", leave, DataError, "tag2mask label images DATA"),
        ("mask --format coco --out out.json", leave, DataError, "mask: no such folder"),
        ("masks --out out.json", leave, Tag2MaskError, "missing option '--format'"),
        ("masks --format coco", leave, Tag2MaskError, "missing option '--out'"),
        ("masks --format coco --out out.json", forget_images, DataError, "--images DIR"),
        ("masks --format yolo_seg --out out", lose_images, DataError, r"b\.jpg: the image is miss"),
        (
            "masks --format coco --out out.json --images elsewhere",
            leave,
            DataError,
            "elsewhere: no such folder",
        ),
        ("masks --format coco --out out.json", break_mask, DataError, "pixel value 9 is no class"),
        (
            "masks --format coco --out out.json --most-uncertain 1",
            leave,
            DataError,
            "no uncertainty of b",
        ),
    ],
)
def test_mistakes_are_one_line_and_write_nothing(
    masks: Path,
    line: str,
    before: Callable[[Path], None],
    kind: type[Tag2MaskError],
    words: str,
):
    before(masks)
    present = sorted(path.name for path in masks.iterdir())
    with pytest.raises(kind, match=words) as caught:
        run(["export", *line.split()])
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in masks.iterdir()) == present


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["masks", "--format", "onx", "--out", "m.onnx"], "Did you mean 'onnx'?"),
        (
            ["masks", "--format", "onnx", "--out", "m.onnx"],
            "masks: is not a run, as it contains no weights",
        ),
        (["run", "--format", "onnx", "--out", "m.onnx", "--flat"], "--flat are for masks; onnx"),
        (
            ["masks", "--format", "coco", "--out", "m.json", "predict.flip=false"],
            "predict.flip: keys change a network, and coco exports masks",
        ),
    ],
)
def test_mistakes_about_model_files(words, message, masks):
    with pytest.raises(Tag2MaskError) as mistake:
        run(["export", *words])
    assert message in str(mistake.value)
    assert not list(masks.glob("m.*"))
