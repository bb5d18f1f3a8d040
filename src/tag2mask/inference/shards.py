"""Shards: independent parts of one labeling run, which any scheduler can start on any machine.

Shard I of N takes every N-th image, from image I on, and writes its masks into the folder that all
shards share. Its rows of scores and its manifest are its own:

```
MASKS/shards/00003-of-00016/scores.jsonl    rows of its images
MASKS/shards/00003-of-00016/skipped.json    its images that cannot be read
MASKS/shards/00003-of-00016/masks.sha256    hash of each mask; check: cd MASKS; sha256sum -c FILE
MASKS/shards/00003-of-00016/manifest.json   counts and hashes; written last, when all is done
```

A shard can be repeated at any time: finished masks are skipped. The shard that finishes last merges
the rows of all. The folder then contains what one process would have written.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tag2mask.errors import DataError, RunError
from tag2mask.io.files import write_text
from tag2mask.io.json_files import FileSchema, read_object
from tag2mask.io.mask_folder import (
    SCORES_FILE,
    read_scores,
    read_skipped,
    score_rows,
    write_scores,
    write_skipped,
)

SHARDS_FOLDER = "shards"
MANIFEST_FILE = "manifest.json"
HASHES_FILE = "masks.sha256"
Count = Annotated[int, Field(ge=0)]


class _Manifest(FileSchema):
    """The file `manifest.json` of a shard."""

    images: Count
    masks: Count
    unreadable: Count
    names_sha256: str
    masks_sha256: str


@dataclass(frozen=True, slots=True)
class Shard:
    """One part of a labeling run; every image belongs to exactly one.

    Raises:
        RunError: If there is no such shard.
    """

    number: int
    """From 0 to `count` - 1."""
    count: int
    """Number of shards of the run."""

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 <= self.number < self.count:
            raise RunError(
                f"shard {self.number} of {self.count}: the shards of a run are numbered from 0 to "
                "their count minus 1"
            )

    def select(self, names: Sequence[str]) -> list[str]:
        """Return the images of this shard."""
        return list(names[self.number :: self.count])

    @property
    def title(self) -> str:
        """Name of its folder and its lock."""
        return f"{self.number:05d}-of-{self.count:05d}"

    def folder(self, out: Path) -> Path:
        """Return the folder of its records."""
        return out / SHARDS_FOLDER / self.title


def finish_shard(out: Path, shard: Shard, names: Sequence[str], inside: Path = Path()) -> list[int]:
    """Write the manifest of a shard; if it was the last one, merge all.

    Args:
        out: Mask folder.
        shard: All its readable images have masks.
        names: Images of all shards, in order.
        inside: Folder of the masks, relative to `out`.

    Returns:
        Numbers of the shards that are not finished; if empty, all are merged.

    Raises:
        RunError: If the disk refuses.
    """
    records, own = shard.folder(out), shard.select(names)
    rows = complete_rows(out, records, [name for name in own if _mask(out, inside, name).is_file()])
    write_scores(records, rows)
    masks = [_mask(out, inside, row["name"]) for row in rows]
    hashes = [f"{_sha256(path)}  {path.relative_to(out).as_posix()}\n" for path in masks]
    write_text(records / HASHES_FILE, "".join(hashes))
    manifest = {
        "shard": shard.number,
        "shards": shard.count,
        "images": len(own),
        "masks": len(rows),
        "unreadable": len(read_skipped(records)),
        "names_sha256": _digest(own),
        "scores_sha256": _sha256(records / SCORES_FILE),
        "masks_sha256": _sha256(records / HASHES_FILE),
    }
    write_text(records / MANIFEST_FILE, json.dumps(manifest, indent=1) + "\n")
    return merge_shards(out, names, shard.count, inside)


def merge_shards(out: Path, names: Sequence[str], count: int, inside: Path = Path()) -> list[int]:
    """Merge the records of all shards, if all are finished; several processes may do it at once.

    Rows of images that the shards do not contain stay, before those of the shards.

    Args:
        out: Mask folder.
        names: Images of all shards, in order.
        count: Number of shards.
        inside: Folder of the masks, relative to `out`.

    Returns:
        Numbers of the shards that are not finished.
    """
    shards = [Shard(number, count) for number in range(count)]
    folders = [shard.folder(out) for shard in shards]
    manifests = [_read_manifest(folder) for folder in folders]
    unfinished = [
        shard.number
        for shard, manifest in zip(shards, manifests, strict=True)
        if manifest.get("names_sha256") != _digest(shard.select(names))
    ]
    if unfinished:
        return unfinished
    known = set(names)
    others = [row for name, row in read_scores(out).items() if name not in known]
    write_scores(out, itertools.chain(others, _rows_in_order(folders, names)))
    skipped: set[str] = set().union(*map(read_skipped, (out, *folders)))
    left = sorted(name for name in skipped if not _mask(out, inside, name).is_file())
    write_skipped(out, left)
    total: dict[str, Any] = {"shards": count}
    total |= {key: sum(one[key] for one in manifests) for key in ("images", "masks", "unreadable")}
    total["masks_sha256"] = _digest(one["masks_sha256"] for one in manifests)
    write_text(out / SHARDS_FOLDER / MANIFEST_FILE, json.dumps(total, indent=1) + "\n")
    return []


def adopt_rows(out: Path, names: Sequence[str], inside: Path = Path()) -> None:
    """Complete `scores.jsonl` by the rows of masks that shards have written.

    Args:
        out: Mask folder.
        names: Images of the run that is not divided, in order.
        inside: Folder of the masks, relative to `out`.
    """
    if not (out / SHARDS_FOLDER).is_dir():
        return
    known = set(names)
    others = [row for name, row in read_scores(out).items() if name not in known]
    done = [name for name in names if _mask(out, inside, name).is_file()]
    write_scores(out, [*others, *complete_rows(out, out, done)])


def complete_rows(out: Path, records: Path, done: Sequence[str]) -> list[dict[str, Any]]:
    """Return the rows of finished masks in order, those that other runs wrote included.

    Args:
        out: Mask folder.
        records: Folder of the rows, the mask folder itself or that of a shard.
        done: Images with a mask.
    """
    rows = read_scores(records)
    if any(name not in rows for name in done):
        for folder in (out, *sorted((out / SHARDS_FOLDER).glob("*-of-*"))):
            rows = {**read_scores(folder), **rows}
    return [rows[name] for name in done if name in rows]


def _rows_in_order(folders: Sequence[Path], names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Yield the rows of all shards in the order of names, without holding all in memory."""
    streams = [score_rows(folder / SCORES_FILE) for folder in folders]
    waiting = [next(stream, None) for stream in streams]
    for index, name in enumerate(names):
        at = index % len(streams)
        row = waiting[at]
        if row is not None and row["name"] == name:
            yield row
            waiting[at] = next(streams[at], None)


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a shard; empty if it is missing or damaged."""
    try:
        return read_object(folder / MANIFEST_FILE, _Manifest)
    except DataError:
        return {}


def _mask(out: Path, inside: Path, name: str) -> Path:
    return out / inside / f"{name}.png"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(names: Iterable[str]) -> str:
    """Return the SHA-256 of a list of words."""
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()
