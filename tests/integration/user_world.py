"""The folder in which the lines of `user_mistakes.yaml` are typed: data, runs, masks, odd files."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image as PILImage

from tag2mask.checkpoint import save_weights
from tag2mask.config.recipe import RECIPE_FOLDER, parse_recipe
from tag2mask.io.mask_folder import describe_classes, write_classes
from tag2mask.io.masks import save_mask
from tag2mask.methods.build import build_method

CLASSES = ("cat", "cow", "dog")
TAGS = {"a": "cat", "b": "cow", "c": "dog", "d": "cat;dog", "e": ""}
RECIPE = {
    "data": {"name": "folder", "root": "pets", "crop_px": 32, "val_fraction": 0.0},
    "backbone": {"name": "tiny"},
    "method": {"name": "cam"},
    "refiner": {"name": "par"},
    "optim": {"steps": 2, "batch_size": 2},
    "run": {"workers": 0, "evaluate_every": 0},
}


def build_world(root: Path) -> None:
    """Write everything below `root`; `pets` are good data, `run` is a run with random weights."""
    write_images(root / "pets" / "images", TAGS)
    write_tags(root / "pets", [f"{name}.png,{tags}" for name, tags in TAGS.items()])
    for folder, names in {"byclass/cat": "ad", "byclass/dog": "cd"}.items():
        write_images(root / folder, names)
    write_broken_data(root)
    recipe = parse_recipe(RECIPE, "test")
    (root / "own.yaml").write_text(recipe.to_yaml(), encoding="utf-8")
    foreign = {**RECIPE, "data": {**RECIPE["data"], "classes": ["cat", "person"]}}
    (root / "foreign.yaml").write_text(parse_recipe(foreign, "test").to_yaml(), encoding="utf-8")
    (root / "torn.yaml").write_text("data: {name: folder\nmethod: [", encoding="utf-8")
    trained = recipe.with_classes(CLASSES)
    state = build_method(trained).state_dict()
    save_weights(root / "run" / "weights" / "last.safetensors", state, trained)
    (root / "run" / "log.jsonl").touch()
    for folder in ("run", "unfinished"):
        (root / folder).mkdir(exist_ok=True)
        (root / folder / "recipe.yaml").write_text(trained.to_yaml(), encoding="utf-8")
    shutil.copy(RECIPE_FOLDER / "cam" / "synthetic_stages.yaml", root / "staged.yaml")
    write_masks(root)
    (root / "empty").mkdir()
    for name in ("movie.mp4", "images.zip", "notes.txt"):
        (root / name).write_bytes(b"not an image")


def write_images(folder: Path, names: object) -> None:
    """Write small images of random colors."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (18, 18, 3), dtype=np.uint8)
        PILImage.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(folder / f"{name}.png")


def write_tags(folder: Path, rows: list[str]) -> None:
    """Write `tags.csv`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tags.csv").write_text("\n".join(["image,tags", *rows]) + "\n", encoding="utf-8")


def write_broken_data(root: Path) -> None:
    """Write folders of images with one mistake each."""
    rows = [f"{name}.png,{tags}" for name, tags in TAGS.items()]
    mistakes = {
        "missing_row": rows[:-1],
        "extra_row": [*rows, "ghost.png,cat"],
        "twice": [*rows, "a.png,dog"],
        "commas": ["a.png,cat,dog", *rows[1:]],
        "unknown": ["a.png,bird", *rows[1:]],
        "quoted": ['a.png,"cat,dog"', *rows[1:]],
    }
    for name, lines in mistakes.items():
        write_images(root / name / "images", TAGS)
        write_tags(root / name, lines)
    write_images(root / "untagged", "abc")
    write_images(root / "torn" / "images", TAGS)
    write_tags(root / "torn", rows)
    (root / "torn" / "images" / "a.png").write_bytes(b"\x89PNG torn")


def write_masks(root: Path) -> None:
    """Write masks of a run in `masks` and, in sub-folders, in `nested`; true ones in `truth`."""
    mask = np.zeros((36, 36), dtype=np.uint8)
    mask[9:18, 9:18] = 1
    for folder, names in {
        "masks": "abcd",
        "truth": "abcd",
        "nested/lane1": "abcd",
        "unnamed": "abcd",
    }.items():
        for name in names:
            path = root / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            save_mask(mask, path)
    for folder in ("masks", "nested"):
        write_classes(root / folder, describe_classes(CLASSES, "tags", {"background": 0.3}))
    for folder, value in {"gray": 200, "few": 1}.items():
        (root / folder).mkdir()
        save_mask(np.full((36, 36), value, np.uint8), root / folder / "a.png")
    PILImage.new("RGB", (36, 36)).save(_made(root / "colored") / "a.png")
    save_mask(np.zeros((20, 20), np.uint8), _made(root / "small") / "a.png")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
