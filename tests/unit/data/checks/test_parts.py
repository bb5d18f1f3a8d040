from pathlib import Path

from tag2mask.data.checks.parts import (
    better_fraction,
    describe_parts,
    held_out_advice,
    is_held_out_list,
    list_advice,
)
from tag2mask.data.folder import is_held_out, part_names
from tag2mask.data.index import DatasetIndex


def _index(tags, groups=None):
    images = {name: Path(f"{name}.jpg") for name in tags}
    return DatasetIndex("here", images, tags, {}, groups=groups or {})


def _kinds(advice):
    return {line.kind: line for line in advice}


def test_classes_are_counted_by_part():
    index = _index({"a": ("cat", "dog"), "b": ("cat",), "c": ()})
    parts = describe_parts(index, {"train": ["a", "b"], "val": ["c", "missing"]})
    assert parts["train"] == (parts["train"].__class__)(("a", "b"), {"cat": 2, "dog": 1})
    assert (parts["val"].names, parts["val"].classes) == (("c",), {})


def test_a_class_whose_images_are_all_held_out_is_named():
    index = _index({"a": ("cat",), "b": ("cow",), "c": ("cat",), "d": ("cat",)})
    parts = describe_parts(index, {"train": ["a", "c", "d"], "val": ["b"]})
    found = _kinds(held_out_advice(index, parts))
    assert "cow (1)" in found["not_learned"].message
    assert "no held-out image shows cat" in found["not_scored"].message


def test_without_training_images_training_cannot_start():
    index = _index({"a": ("cat",)})
    parts = describe_parts(index, {"train": [], "val": ["a"]})
    (line,) = held_out_advice(index, parts)
    assert line.severity == "problem"
    assert "data.val_fraction=0 " in line.message


def test_the_proposed_fraction_holds_out_about_a_tenth():
    index = _index({f"i{number}": ("cat",) for number in range(8)})
    held_out = part_names(index, "val", better_fraction(index))
    assert len(held_out) == 1
    groups = {f"i{number}": f"plot {number % 5}" for number in range(50)}
    index = _index(dict.fromkeys(groups, ("cat",)), groups)
    assert not any(is_held_out(group, 0.0) for group in groups.values())
    assert len(part_names(index, "val", better_fraction(index))) == 10  # one group of five


def test_lists_that_share_images_leak_only_if_one_is_held_out():
    index = _index({"a": ("cat",), "b": ("cat",), "c": ("cat",)})
    names = {"train": ["a", "b"], "train_aug": ["a"], "val": ["b", "c"]}
    lines = list(list_advice(index, describe_parts(index, names)))
    assert [(line.kind, line.severity, line.names) for line in lines] == [
        ("shared_images", "note", ("a",)),
        ("leakage", "warning", ("b",)),
    ]


def test_a_group_in_training_and_held_out_lists_leaks():
    index = _index({"a": (), "b": (), "c": ()}, {"a": "p1", "b": "p1", "c": "p2"})
    parts = describe_parts(index, {"train": ["a", "c"], "devval": ["b"]})
    (line,) = list_advice(index, parts)
    assert (line.kind, line.names) == ("leakage", ("p1",))


def test_names_of_held_out_lists_are_recognized():
    assert [name for name in ("train", "val", "test", "devval", "train_aug") if
            is_held_out_list(name)] == ["val", "test", "devval"]  # fmt: skip
