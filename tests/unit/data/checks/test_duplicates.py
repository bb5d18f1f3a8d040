import numpy as np
from PIL import Image

from tag2mask.data.checks.duplicates import duplicate_advice, find_duplicates
from tag2mask.data.checks.near_duplicates import fingerprint
from tag2mask.data.checks.parts import describe_parts
from tag2mask.data.checks.report import Duplicates
from tag2mask.data.index import DatasetIndex


def test_exact_and_near_duplicates_have_all_tags_and_parts(tmp_path):
    tags = {"a": ("cat",), "b": ("dog",), "c": ("cat",), "d": ("cow",), "e": ()}
    images, prints = {}, {}
    for seed, name in enumerate(tags):
        rough = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        images[name] = tmp_path / f"{name}.png"
        Image.fromarray(rough).resize((80, 60)).save(images[name])
    images["b"].write_bytes(images["a"].read_bytes())
    with Image.open(images["d"]) as picture:
        picture.resize((40, 30)).save(images["c"])
    for name, path in images.items():
        with Image.open(path) as picture:
            prints[name] = fingerprint(picture)
    index = DatasetIndex("here", images, tags, {})
    parts = describe_parts(index, {"train": ["a", "b", "c"], "val": ["d", "e"]})
    assert find_duplicates(index, prints, parts) == (
        Duplicates(("a", "b"), True, ("cat", "dog"), True, ("train",)),
        Duplicates(("c", "d"), False, ("cat", "cow"), True, ("train", "val")),
    )


def _lines(*groups, has_tag_file=True):
    advice = duplicate_advice(groups, has_tag_file=has_tag_file)
    return {(line.kind, line.severity): line.message for line in advice}


def test_advice_keeps_all_tags():
    group = Duplicates(("a", "b"), True, ("cat", "dog"), True, ("train",))
    key = ("duplicates_with_other_tags", "warning")
    assert "all their tags, as row 'a,cat;dog'" in _lines(group)[key]
    assert "all their tags, in a folder 'cat+dog'" in _lines(group, has_tag_file=False)[key]


def test_equal_images_are_a_warning_and_near_ones_a_note():
    exact = Duplicates(("a", "b"), True, ("cat",), False, ("train",))
    near = Duplicates(("c", "d"), False, ("cat",), False, ("train",))
    assert list(_lines(exact, near)) == [("duplicates", "warning"), ("near_duplicates", "note")]


def test_duplicates_in_training_and_held_out_images_leak():
    group = Duplicates(("a", "b"), False, ("cat",), False, ("train", "val"))
    assert ("leakage", "warning") in _lines(group)
    assert ("leakage", "warning") not in _lines(
        Duplicates(("a", "b"), False, ("cat",), False, ("train", "train_aug"))
    )


def test_merged_images_are_named_and_contradictions_are_warnings():
    merged = Duplicates(("_negative/a", "cat/a"), True, ("cat",), True, ("train",), "_negative/a")
    assert list(_lines(merged)) == [("merged", "note"), ("contradiction", "warning")]
