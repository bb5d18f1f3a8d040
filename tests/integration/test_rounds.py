"""The rounds of `rml/animals_rounds` run end to end on small images in VOC layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage

from tag2mask.cli.main import main
from tag2mask.data.voc import VOC_CLASSES
from tag2mask.io.masks import read_mask, save_mask
from tag2mask.types import IGNORE

CLASSES = ("cat", "cow", "dog")
COLORS = ((220, 40, 40), (40, 60, 220), (40, 200, 60))
LISTS = {"train_aug": 6, "train": 3, "devval": 2}
SMALL = """data.classes=cat,cow,dog data.crop_px=64
backbone.name=tiny backbone.width=8 backbone.weights=none
optim.steps=4 optim.batch_size=2 run.workers=0 run.samples=0 predict.scales=1.0 method.warmup=0.5
method.label_scales=1.0 refiner.iterations=2
stages.seg.method.decoder_width=8 stages.seg2.method.decoder_width=8"""
ROUNDS = ("first", "seg", "seg2")


def write_image(root: Path, name: str, shown: tuple[int, ...]) -> None:
    """Write an image of colored squares, one per class, with its true mask."""
    image = np.full((64, 96, 3), 120, np.uint8)
    mask = np.zeros((64, 96), np.uint8)
    for position, index in enumerate(shown):
        area = np.s_[16:44, 10 + 44 * position : 44 + 44 * position]
        image[area], mask[area] = COLORS[index], VOC_CLASSES.index(CLASSES[index]) + 1
    PILImage.fromarray(image).save(root / "JPEGImages" / f"{name}.jpg")
    save_mask(mask, root / "SegmentationClass" / f"{name}.png")


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    """Return a VOC root; `train` is a part of `train_aug`, and every image has one or two tags."""
    root = tmp_path_factory.mktemp("voc")
    lists = root / "ImageSets" / "Segmentation"
    for folder in (root / "JPEGImages", root / "SegmentationClass", lists):
        folder.mkdir(parents=True)
    names = [f"{index:02d}" for index in range(LISTS["train_aug"] + LISTS["devval"])]
    rows = ["image,tags"]
    for index, name in enumerate(names):
        shown = ((0,), (1,), (2,), (0, 1), (1, 2), (0, 2))[index % 6]
        write_image(root, name, shown)
        rows.append(f"{name}.jpg,{';'.join(CLASSES[one] for one in shown)}")
    (root / "tags.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    parts = {"train_aug": names[:6], "train": names[:3], "devval": names[6:]}
    for part, listed in parts.items():
        (lists / f"{part}.txt").write_text("\n".join(listed) + "\n", encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def finished(voc, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("rounds") / "run"
    words = ["train", "rml/animals_rounds", f"data.root={voc}", *SMALL.split()]
    assert main([*words, "--out", str(out)]) == 0
    return out


@pytest.mark.slow
def test_labels_of_every_round_contain_only_tags_background_and_ignore(finished, voc):
    rows = (voc / "tags.csv").read_text(encoding="utf-8").splitlines()[1:7]
    for labels in ("labels", "labels2"):
        for row in rows:
            image, tags = row.split(",")
            allowed = {0, IGNORE} | {CLASSES.index(tag) + 1 for tag in tags.split(";")}
            mask = read_mask(finished / labels / image.replace(".jpg", ".png"), len(CLASSES))
            assert set(np.unique(mask).tolist()) <= allowed, (labels, image)


def test_every_round_is_scored_with_both_class_sources(finished):
    for name in ROUNDS:
        for part, images, source in (("train", 3, "tags"), ("devval", 2, "classifier")):
            scores = json.loads((finished / f"{name}_{part}" / "scores.json").read_text("utf-8"))
            assert (scores["images"], scores["class_source"]) == (images, source)
            assert scores["settings"]["class_source"] == source
            assert scores["settings"]["crf"]["name"] == "dense_crf"
            assert sum(quarter["objects"] for quarter in scores["by_size"]) >= images


def test_each_segmentation_network_learns_from_the_labels_of_the_round_before(finished):
    for labels, network, maker in (("labels", "seg", "rml"), ("labels2", "seg2", "supervised")):
        described = json.loads((finished / labels / "classes.json").read_text("utf-8"))
        assert described["settings"]["method"] == maker
        assert described["class_source"] == "tags"
        trained = (finished / network / "recipe.yaml").read_text(encoding="utf-8")
        assert f"labels: {finished / labels}" in trained


def test_finished_rounds_are_skipped(finished, capsys):
    assert main(["train", "--resume", str(finished)]) == 0
    assert capsys.readouterr().out.count("finished, skipped") == 11
