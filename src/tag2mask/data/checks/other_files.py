"""Files of a data set that are not read as images, and images that are probably masks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tag2mask.data.checks.inspection import InspectedImage
from tag2mask.data.checks.report import Advice, Severity
from tag2mask.data.index import DatasetIndex, count
from tag2mask.data.tags import name_some
from tag2mask.errors import MissingExtraError
from tag2mask.io.heif import EXTRA, can_read_heif, is_heif
from tag2mask.io.images import is_image_name, list_images, visible_files
from tag2mask.io.masks import has_few_colors
from tag2mask.io.other_files import TEXT, by_kind

_MOST_LINES = 10
_READ = frozenset(("tags.csv", "tags.jsonl", "classes.json", "scores.jsonl", "skipped.json"))
_PROSE = ("readme", "license", "notice")


def other_file_advice(root: Path, mask_folders: Sequence[Path]) -> Iterator[Advice]:
    """Yield a line per kind of file that is no image, such as videos and archives."""
    ignored = [
        path
        for path in sorted(visible_files(root))
        if not is_image_name(path)
        and path.name not in _READ
        and not path.name.lower().startswith(_PROSE)
        and not any(path.is_relative_to(folder) for folder in mask_folders)
    ]
    for kind, paths in by_kind(ignored).items():
        names = tuple(path.relative_to(root).as_posix() for path in paths)
        noun = kind.name if len(paths) == 1 else kind.plural
        advice = kind.advice.replace("VIDEO", names[0])
        yield Advice(
            "other_files",
            "note" if kind is TEXT else "warning",
            f"{len(paths):,} {noun} not read: {name_some(names)}"
            + ("" if kind is TEXT else f"; {advice}"),
            names,
        )


def unreadable_advice(
    dataset_index: DatasetIndex, inspected: Mapping[str, InspectedImage], *, strict: bool
) -> Iterator[Advice]:
    """Yield a line per unreadable image, and one for all that need the extra for HEIC."""
    severity: Severity = "problem" if strict else "warning"
    unreadable = {name: image.problem for name, image in inspected.items() if image.problem}
    heic = []
    if not can_read_heif():
        heic = [name for name in unreadable if _is_heic(dataset_index.images[name])]
    if heic:
        files = [dataset_index.images[name].name for name in heic]
        yield Advice(
            "heic",
            severity,
            f"{count(len(heic), 'HEIC image')} not read: {name_some(files)}; "
            f"{MissingExtraError(EXTRA)}",
            tuple(heic),
        )
    lines = [(name, line) for name, line in unreadable.items() if name not in heic]
    for name, line in lines[:_MOST_LINES]:
        yield Advice("unreadable", severity, str(line), (name,))
    if len(lines) > _MOST_LINES:
        names = tuple(name for name, _ in lines[_MOST_LINES:])
        more = count(len(names), "more unreadable image")
        yield Advice("unreadable", severity, f"and {more}", names)


def mask_like_advice(
    dataset_index: DatasetIndex, root: Path, inspected: Mapping[str, InspectedImage]
) -> Iterator[Advice]:
    """Yield a line about images that are probably masks, and one if these clash with images."""
    mask_like = tuple(name for name, image in inspected.items() if image.is_mask)
    if mask_like:
        folders = Counter(name.rpartition("/")[0] for name in mask_like)
        folder, number = folders.most_common(1)[0]
        where = f" ({number:,} of them in {folder})" if folder else ""
        yield Advice(
            "mask_like",
            "warning",
            f"{count(len(mask_like), 'image')} with so few colors that they are probably masks: "
            f"{name_some(mask_like)}{where}; move masks to {root / 'masks'}",
            mask_like,
        )
    used = set(dataset_index.images.values())
    used |= {path for paths in dataset_index.merged.values() for path in paths}
    folders_of_images = {path.parent for path in used}
    beside = [
        path.relative_to(root).as_posix()
        for path in list_images(root)
        if path not in used and path.parent in folders_of_images and has_few_colors(path)
    ]
    if beside:
        yield Advice(
            "mask_like",
            "warning",
            f"{count(len(beside), 'file')} beside the images probably masks: {name_some(beside)}; "
            f"move them to {root / 'masks'}",
            tuple(beside),
        )


def _is_heic(path: Path) -> bool:
    """Return whether a file is HEIC; a missing one is not."""
    try:
        return is_heif(path)
    except OSError:
        return False
