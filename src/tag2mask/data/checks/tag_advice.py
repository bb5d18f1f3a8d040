"""Advice about tags: what cannot be learned from them, and what is probably mistyped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations

from tag2mask.data.checks.report import Advice
from tag2mask.data.checks.spelling import probable_typos, spelling_variants
from tag2mask.data.index import DatasetIndex
from tag2mask.data.tags import TagTable, name_some

FEW_IMAGES = 10
"""A class with fewer images gets a warning."""
_MOST_NAMES = 10
_BACKGROUND = "background"


def count_pairs(rows: Iterable[Iterable[str]]) -> tuple[tuple[str, str, int], ...]:
    """Return each two classes that occur together with their number of images, most first."""
    pairs = Counter(pair for row in rows for pair in combinations(sorted(row), 2))
    return tuple(
        (first, second, number)
        for (first, second), number in sorted(pairs.items(), key=lambda item: (-item[1], item[0]))
    )


def tag_advice(dataset_index: DatasetIndex) -> Iterator[Advice]:
    """Yield advice about the tags of a data set."""
    shown_by = _images_by_tag(dataset_index.tags)
    counts = {tag: len(names) for tag, names in sorted(shown_by.items())}
    typos = probable_typos(counts)
    for tag, meant in sorted(typos.items())[:_MOST_NAMES]:
        yield Advice(
            "typo",
            "warning",
            f"tag '{tag}' of {name_some(shown_by[tag])}: did you mean '{meant}' "
            f"({counts[meant]:,} images)?",
            tuple(shown_by[tag]),
        )
    if len(typos) > _MOST_NAMES:
        more = sorted(typos)[_MOST_NAMES:]
        names = tuple(name for tag in more for name in shown_by[tag])
        line = f"and {len(more):,} more tags that are probably mistyped: {name_some(more)}"
        yield Advice("typo", "warning", line, names)
    for variants in spelling_variants(counts):
        yield Advice(
            "spelling",
            "warning",
            f"tags {', '.join(map(repr, variants))} differ only in case or spaces and count as "
            "different classes; write them alike",
            tuple(name for tag in variants for name in shown_by[tag]),
        )
    for tag in counts:
        if tag.casefold() == _BACKGROUND:
            yield Advice(
                "background",
                "warning",
                f"tag '{tag}' would be learned as a class; give images that show no class an empty "
                "list of tags",
            )
    yield from _unlearnable(counts, shown_by, len(dataset_index.tags), typos)
    unused = [name for name in dataset_index.mask_classes if name not in counts]
    if unused and counts:
        yield Advice(
            "unused_classes",
            "note",
            f"no image shows {name_some(unused, _MOST_NAMES)}; they are not learned",
        )


def _unlearnable(
    counts: Mapping[str, int],
    shown_by: Mapping[str, list[str]],
    images: int,
    typos: Mapping[str, str],
) -> Iterator[Advice]:
    """Yield advice about classes that tags cannot teach."""
    for tag, number in counts.items():
        if number == images:
            yield Advice(
                "in_every_image",
                "warning",
                f"class '{tag}': every image shows it, so it cannot be distinguished from "
                "background; add images without it, with their other tags or none",
            )
    few = [
        f"{tag} ({number})"
        for tag, number in sorted(counts.items(), key=lambda item: (item[1], item[0]))
        if number < FEW_IMAGES and tag not in typos
    ]
    if few:
        yield Advice(
            "few_images",
            "warning",
            f"classes with fewer than {FEW_IMAGES} images: {name_some(few, _MOST_NAMES)}; their "
            "masks will be poor, add images",
        )
    together: dict[tuple[str, ...], list[str]] = {}
    for tag, names in shown_by.items():
        together.setdefault(tuple(names), []).append(tag)
    inseparable = [sorted(tags) for tags in together.values() if len(tags) > 1]
    for tags in sorted(inseparable)[:_MOST_NAMES]:
        yield Advice(
            "inseparable",
            "warning",
            f"classes {' and '.join(map(repr, tags[:_MOST_NAMES]))} always occur together, "
            "so tags cannot distinguish them; add images that show only one of them, or merge the "
            "classes",
        )
    if len(inseparable) > _MOST_NAMES:
        yield Advice(
            "inseparable",
            "warning",
            f"and {len(inseparable) - _MOST_NAMES:,} more sets of classes that never come apart",
        )


def _images_by_tag(tags: TagTable) -> dict[str, list[str]]:
    """Return tag -> the names of the images that show it, in the order of the images."""
    shown_by: dict[str, list[str]] = {}
    for name, row in tags.items():
        for tag in row:
            shown_by.setdefault(tag, []).append(name)
    return shown_by
