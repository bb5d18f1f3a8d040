"""Images that occur several times, with the tags and the parts of all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tag2mask.data.checks.near_duplicates import Fingerprint, near_duplicates
from tag2mask.data.checks.parts import is_held_out_list
from tag2mask.data.checks.report import Advice, Duplicates, Part, Severity
from tag2mask.data.index import DatasetIndex, count, file_name
from tag2mask.data.tags import NEGATIVE_FOLDER, name_some
from tag2mask.io.equal_files import equal_files

_MOST_GROUPS = 3
_MOST_NAMES = 4


def find_duplicates(
    dataset_index: DatasetIndex,
    prints: Mapping[str, Fingerprint],
    parts: Mapping[str, Part],
) -> tuple[Duplicates, ...]:
    """Return the exact duplicates, then the near ones.

    Args:
        dataset_index: The images.
        prints: Name -> fingerprint of each readable image.
        parts: Parts or lists.
    """
    names = {path: name for name, path in dataset_index.images.items()}
    exact = [tuple(names[path] for path in group) for group in equal_files(names)]
    found = [_describe(group, dataset_index, parts, exact=True) for group in exact]
    repeated = {name for group in exact for name in group[1:]}
    single = {name: image for name, image in prints.items() if name not in repeated}
    near = [
        _describe(group, dataset_index, parts, exact=False) for group in near_duplicates(single)
    ]
    return (*_merged(dataset_index, parts), *found, *near)


def duplicate_advice(duplicates: Sequence[Duplicates], *, has_tag_file: bool) -> Iterator[Advice]:
    """Yield advice about duplicates: what was merged, what to merge, what leaks."""
    merged = [group for group in duplicates if group.kept is not None]
    if merged:
        yield _line(
            "merged",
            "note",
            merged,
            f"{count(len(merged), 'image')} in several class folders, each counted as one image "
            "with all its tags",
            "the mask of each gets the first name",
        )
    contradicting = [
        group for group in merged if any(name.startswith(NEGATIVE_FOLDER) for name in group.names)
    ]
    if contradicting:
        yield _line(
            "contradiction",
            "warning",
            contradicting,
            f"{count(len(contradicting), 'image')} in {NEGATIVE_FOLDER} and in a class folder",
            "counted with the tags; remove one of each",
        )
    rest = [group for group in duplicates if group.kept is None]
    for exact, what in ((True, "equal images"), (False, "nearly equal images")):
        chosen = [group for group in rest if group.exact is exact]
        differing = [group for group in chosen if group.tags_differ]
        alike = [group for group in chosen if not group.tags_differ]
        if differing:
            first = differing[0]
            tags = (";" if has_tag_file else "+").join(first.tags)
            how = f"as row '{first.names[0]},{tags}'" if has_tag_file else f"in a folder '{tags}'"
            yield _line(
                "duplicates_with_other_tags",
                "warning",
                differing,
                f"{count(len(differing), 'group')} of {what} with different tags",
                f"keep one of each with all their tags, {how}",
            )
        if alike:
            yield _line(
                "duplicates" if exact else "near_duplicates",
                "warning" if exact else "note",
                alike,
                f"{count(len(alike), 'group')} of {what}",
                "keep one of each" if exact else "they teach little more than one of them",
            )
    leaks = [group for group in rest if _leaks(group)]
    if leaks:
        yield _line(
            "leakage",
            "warning",
            leaks,
            f"{count(len(leaks), 'group')} of equal or nearly equal images in training and among "
            "the held-out images",
            "scores will be too good; keep one of each, or give each a group in the tag file",
        )


def _leaks(group: Duplicates) -> bool:
    """Return whether a group is in a part to learn from and in a held-out one."""
    return len({is_held_out_list(part) for part in group.parts}) > 1


def _merged(dataset_index: DatasetIndex, parts: Mapping[str, Part]) -> Iterator[Duplicates]:
    """Yield what the data source made one image of."""
    for kept, others in dataset_index.merged.items():
        first = dataset_index.images[kept]
        root = first.parents[kept.count("/")]
        names = (kept, *(file_name(path, root) for path in others))
        tags = tuple(dataset_index.tags[kept])
        where = tuple(part for part, described in parts.items() if kept in described.names)
        yield Duplicates(names, True, tags, True, where, kept=kept)


def _describe(
    names: tuple[str, ...],
    dataset_index: DatasetIndex,
    parts: Mapping[str, Part],
    *,
    exact: bool,
) -> Duplicates:
    """Add tags and parts to a group of images."""
    rows = [dataset_index.tags.get(name, ()) for name in names]
    return Duplicates(
        names=names,
        exact=exact,
        tags=tuple(dict.fromkeys(tag for row in rows for tag in row)),
        tags_differ=len({frozenset(row) for row in rows}) > 1,
        parts=tuple(
            part for part, described in parts.items() if not set(names).isdisjoint(described.names)
        ),
    )


def _line(
    kind: str, severity: Severity, groups: Sequence[Duplicates], what: str, how: str
) -> Advice:
    """Write one line about some groups."""
    shown = [" = ".join(group.names[:_MOST_NAMES]) for group in groups]
    return Advice(
        kind,
        severity,
        f"{what}: {name_some(shown, _MOST_GROUPS)}; {how}",
        tuple(name for group in groups for name in group.names),
    )
