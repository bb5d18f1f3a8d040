"""One folder per class: folders that are no classes, and one image in several class folders."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tag2mask.data.tags import TagTable, name_some
from tag2mask.io.equal_files import equal_files

PART_FOLDERS = frozenset(
    ("train", "training", "val", "valid", "validation", "test", "testing", "trainval")
)
"""Names of folders for parts of a data set, which people do not mean as classes."""


def class_folder_problems(root: Path, paths: Iterable[str]) -> list[str]:
    """Return a line if the folders of images are parts of a data set, or a folder too deep.

    Args:
        root: The folder that contains the class folders.
        paths: Images relative to it, `/` between folders.
    """
    listed = [path.split("/") for path in paths if "/" in path]
    tops = sorted({parts[0] for parts in listed})
    nested = all(len(parts) > 2 for parts in listed)
    if tops and nested and {top.lower() for top in tops} <= PART_FOLDERS:
        return [
            f"{root}: the class folders would be {name_some(tops)}, which are parts of a data "
            f"set; give one of them: {root / tops[0]}"
        ]
    if len(tops) == 1 and nested and len({parts[1] for parts in listed}) > 1:
        return [
            f"{root}: all images are in the folder '{tops[0]}', so that would be their only "
            f"class; give that folder: {root / tops[0]}"
        ]
    return []


def tag_file_hint(root: Path) -> str:
    """Return the end of a message that names a file which may contain the tags; empty without."""
    files = sorted(path.name for path in root.iterdir() if path.suffix in (".csv", ".jsonl"))
    if not files:
        return ""
    suffix = Path(files[0]).suffix
    return (
        f"; if {files[0]} contains the tags, rename it to tags{suffix} or add data.tags={files[0]}"
    )


def merge_tags(
    images: Mapping[str, Path], tags: TagTable
) -> tuple[dict[str, Path], dict[str, tuple[str, ...]], dict[str, tuple[Path, ...]]]:
    """Make one image with all tags of files with equal content and different tags.

    Returns:
        The images that remain, the first file of each that has a tag; their tags; and name -> the
        other files.
    """
    names = {path: name for name, path in images.items()}
    merged_tags, others = dict(tags), {}
    dropped = set()
    for group in equal_files(images.values()):
        first, *rest = sorted(group, key=lambda path: not tags[names[path]])  # stable
        rows = [tags[names[path]] for path in (first, *rest)]
        if len({frozenset(row) for row in rows}) == 1:
            continue  # a plain duplicate, which loses no tag
        merged_tags[names[first]] = tuple(dict.fromkeys(tag for row in rows for tag in row))
        others[names[first]] = tuple(rest)
        dropped |= {names[path] for path in rest}
    return (
        {name: path for name, path in images.items() if name not in dropped},
        {name: row for name, row in merged_tags.items() if name not in dropped},
        others,
    )
