"""What goes where: training images, held-out images and lists, and what they share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations

from tag2mask.data.checks.report import Advice, Part
from tag2mask.data.folder import holdout_point
from tag2mask.data.index import DatasetIndex, count
from tag2mask.data.tags import name_some

_MOST_NAMES = 10
_HELD_OUT_WORDS = ("val", "test", "eval")
"""Parts of names of lists that are held out."""
_USUAL_FRACTION = 0.1
_LARGEST_FRACTION = 0.4
"""Held-out images beyond this fraction are missed in training."""


def describe_parts(
    dataset_index: DatasetIndex, names: Mapping[str, Sequence[str]]
) -> dict[str, Part]:
    """Count the classes of each part or list."""
    parts = {}
    for part, listed in names.items():
        known = [name for name in listed if name in dataset_index.tags]
        shown = Counter(tag for name in known for tag in dataset_index.tags[name])
        parts[part] = Part(tuple(known), dict(sorted(shown.items())))
    return parts


def held_out_advice(dataset_index: DatasetIndex, parts: Mapping[str, Part]) -> Iterator[Advice]:
    """Yield advice about the held-out images of a folder; its parts are `train` and `val`."""
    train, val = parts["train"], parts["val"]
    images = len(train.names) + len(val.names)
    kind = "groups" if dataset_index.groups else "images"
    if not train.names or not val.names or len(val.names) > _LARGEST_FRACTION * images:
        yield Advice(
            "held_out",
            "warning" if train.names else "problem",
            f"{len(val.names):,} of {count(images, 'image')} are held out, because the names of "
            f"their {kind} decide; data.val_fraction={better_fraction(dataset_index):g} holds out "
            "a better number",
        )
    if not train.names:
        return
    lost = [f"{tag} ({number})" for tag, number in val.classes.items() if tag not in train.classes]
    if lost:
        yield Advice(
            "not_learned",
            "warning",
            f"all images of a class are held out, so it is not learned: "
            f"{name_some(lost, _MOST_NAMES)}; add images",
        )
    unscored = [tag for tag in train.classes if tag not in val.classes]
    if val.names and unscored:
        yield Advice(
            "not_scored",
            "note",
            f"no held-out image shows {name_some(unscored, _MOST_NAMES)}, so no score tells how "
            "well these classes are learned",
        )


def better_fraction(dataset_index: DatasetIndex) -> float:
    """Return the value of `data.val_fraction` that holds out about a tenth, at least one image.

    It is 0 if there is only one image or group.
    """
    sizes = Counter(dataset_index.groups.get(name, name) for name in dataset_index.images)
    if len(sizes) < 2:
        return 0.0
    wanted = max(1.0, _USUAL_FRACTION * len(dataset_index.images))
    held_out, best, smallest_error = 0, _USUAL_FRACTION, float("inf")
    for key in sorted(sizes, key=holdout_point)[:-1]:
        held_out += sizes[key]
        error = abs(held_out - wanted)
        if error < smallest_error:
            best, smallest_error = holdout_point(key), error
    return float(f"{best + 5e-5:.4f}")


def list_advice(dataset_index: DatasetIndex, parts: Mapping[str, Part]) -> Iterator[Advice]:
    """Yield advice about lists that share images or groups."""
    members: Mapping[str, Collection[str]] = {
        part: frozenset(described.names) for part, described in parts.items()
    }
    for first, second in combinations(parts, 2):
        both = [name for name in parts[first].names if name in members[second]]
        leaks = is_held_out_list(first) != is_held_out_list(second)
        if both:
            yield Advice(
                "leakage" if leaks else "shared_images",
                "warning" if leaks else "note",
                f"lists '{first}' and '{second}' share {count(len(both), 'image')} "
                f"({name_some(both)}), so a score on one after training on the other is too good",
                tuple(both),
            )
    yield from group_advice(dataset_index.groups, parts)


def group_advice(groups: Mapping[str, str], parts: Mapping[str, Part]) -> Iterator[Advice]:
    """Yield advice about groups that are in a list to learn from and in a held-out list."""
    where: dict[str, set[bool]] = {}
    for part, described in parts.items():
        for name in described.names:
            if name in groups:
                where.setdefault(groups[name], set()).add(is_held_out_list(part))
    straddling = [group for group, kinds in where.items() if len(kinds) > 1]
    if straddling:
        yield Advice(
            "leakage",
            "warning",
            f"{count(len(straddling), 'group')} in training and in held-out lists: "
            f"{name_some(straddling)}; scores will be too good, list a group in one of them only",
            tuple(straddling),
        )


def is_held_out_list(name: str) -> bool:
    """Return whether the name of a list says that its images are held out."""
    return any(word in name.lower() for word in _HELD_OUT_WORDS)
