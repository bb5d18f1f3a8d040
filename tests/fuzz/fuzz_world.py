"""Good data, runs and exports, of which the bad inputs are broken copies."""

import contextlib
import io
import json
import shutil
from pathlib import Path

from PIL import Image as PILImage
from tests.integration.user_world import CLASSES, TAGS, build_world

from tag2mask.cli.main import main

IMPORTS = {
    "coco": "coco.json",
    "cvat": "cvat.zip",
    "fiftyone": "fiftyone",
    "label_studio": "label_studio",
    "ultralytics_semantic": "semantic",
    "voc_png": "voc_png",
    "yolo_seg": "yolo",
}
"""Format that `import` reads -> an export of it in the world."""
XML = """\
<annotation>
  <folder>VOC</folder>
  <filename>{name}.jpg</filename>
  <size><width>36</width><height>36</height><depth>3</depth></size>
  <object><name>cat</name><difficult>0</difficult></object>
</annotation>
"""


def build_fuzz_world(root: Path, *, trained: bool) -> None:
    """Write the world below `root`, which is the working folder.

    Args:
        root: Empty.
        trained: Whether to train a run, which takes seconds.
    """
    build_world(root)
    write_labeled(root / "labeled", root / "masks")
    for format_name, out in IMPORTS.items():
        words = ("export", "labeled", "--images", "pets/images", "--format", format_name)
        do(*words, "--out", f"exports/{out}")
    write_coco(root)
    write_voc(root)
    write_jsonl(root)
    (root / "one.png").write_bytes((root / "pets" / "images" / "a.png").read_bytes())
    if trained:
        do("train", "own.yaml", "--out", "trained", "run.log_every=1", "run.estimate=false")
        write_history(root / "trained" / "metrics.json")


def do(*words: str) -> None:
    """Type a line that must succeed."""
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = main(list(words))
    assert code == 0, (words, errors.getvalue())


def write_labeled(folder: Path, masks: Path) -> None:
    """Write masks with their scores, as `label` does."""
    shutil.copytree(masks, folder)
    rows = [
        {"name": name, "scores": {"cat": 0.9}, "areas": {"cat": 0.06}, "uncertainty": 0.2}
        | {"tags": ["cat"], "width": 36, "height": 36}
        for name in "abcd"
    ]
    text = "".join(f"{json.dumps(row)}\n" for row in rows)
    (folder / "scores.jsonl").write_text(text, encoding="utf-8")


def write_history(path: Path) -> None:
    """Add an evaluation on true masks and a tuned threshold, as many runs have."""
    metrics = json.loads(path.read_text(encoding="utf-8"))
    detail = {"class_names": list(CLASSES), "iou": [0.5, 0.25, None, 0.0], "miou": 0.25}
    detail |= {"images": 3, "class_source": "classifier", "settings": {"scales": [1.0]}}
    metrics["history"] = [{"step": 2, "score": 0.25, "detail": detail}]
    metrics["best"] = {"step": 2, "score": 0.25, "reason": "mIoU"}
    path.write_text(json.dumps(metrics), encoding="utf-8")
    tuned = {"chosen": {"predict": {"background": 0.4}}, "trained": {"predict": {}}, "record": {}}
    path.with_name("tune.json").write_text(json.dumps(tuned), encoding="utf-8")


def write_coco(root: Path) -> None:
    """Write data in COCO format: images beside their JSON."""
    folder = root / "coco" / "train"
    folder.mkdir(parents=True)
    for name in TAGS:
        image = (root / "pets" / "images" / f"{name}.png").read_bytes()
        (folder / f"{name}.png").write_bytes(image)
    text = (root / "exports" / "coco.json").read_text(encoding="utf-8")
    (folder / "_annotations.coco.json").write_text(text, encoding="utf-8")


def write_voc(root: Path) -> None:
    """Write a VOC layout with annotations in XML."""
    for name in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (root / "voc" / name).mkdir(parents=True)
    for name in TAGS:
        PILImage.new("RGB", (36, 36)).save(root / "voc" / "JPEGImages" / f"{name}.jpg")
        xml = XML.format(name=name)
        (root / "voc" / "Annotations" / f"{name}.xml").write_text(xml, encoding="utf-8")
    listed = "".join(f"{name}\n" for name in TAGS)
    (root / "voc" / "ImageSets" / "Segmentation" / "train.txt").write_text(listed, encoding="utf-8")


def write_jsonl(root: Path) -> None:
    """Write a folder whose tags are in JSON Lines."""
    folder = root / "lines" / "images"
    folder.mkdir(parents=True)
    rows = []
    for name in TAGS:
        image = (root / "pets" / "images" / f"{name}.png").read_bytes()
        (folder / f"{name}.png").write_bytes(image)
        rows.append(f'{{"image": "{name}.png", "tags": ["cat"]}}\n')
    (root / "lines" / "tags.jsonl").write_text("".join(rows), encoding="utf-8")
