"""Label WebDataset tar files: one file of masks for each file of images.

```
OUT/classes.json   as beside all masks
OUT/000.tar        mask and row of each image, see `io.tar_shards`
OUT/000.jsonl      the rows alone
OUT/000.json       counts and hashes; written last, when the file is done
```

A file is the unit of work: it appears completely or not at all, and finished ones are skipped.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from tag2mask.errors import DataError, did_you_mean
from tag2mask.inference.batches import ImageInput
from tag2mask.inference.inputs import tag_row
from tag2mask.inference.mask_summary import MaskSummary, summarize_rows
from tag2mask.inference.open_job import OpenJob
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.inference.workers import predict_in_workers
from tag2mask.inference.writer import OnImage, WriteSummary, open_mask_folder, progress
from tag2mask.io.files import write_atomically, write_text
from tag2mask.io.json_files import FileSchema, read_object
from tag2mask.io.mask_folder import (
    describe_classes,
    describe_image,
    read_classes,
    score_line,
    score_row,
    score_rows,
)
from tag2mask.io.tar_shards import JSON_SUFFIX, TAR_SUFFIX, MaskTar, TarSample, read_samples
from tag2mask.types import ClassSource, Image, Prediction

ROWS_SUFFIX = ".jsonl"


class _Manifest(FileSchema):
    """The manifest of a tar file of masks."""

    masks: Annotated[int, Field(ge=0)]
    unreadable: dict[str, str]
    source_bytes: int


def tar_files(paths: Sequence[Path]) -> list[Path]:
    """Return the tar files that paths name, or that folders of nothing else contain.

    Empty if a path is neither.
    """
    found: list[Path] = []
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.name[0] != ".")
        if not inside or any(one.suffix != TAR_SUFFIX for one in inside):
            return []
        found += inside
    return found


class OpenTarJob(OpenJob):
    """Tar files and the network that labels their images.

    Args:
        segmenter: Makes the masks.
        out: Folder for the masks.
        files: From `tar_files`.
        tagged: Whether the tags in the files select the classes; else the classifier does.
        strict: Fail at an unreadable image instead of skipping it.
        skip_unknown_tags: Leave out tags that the network does not know.

    Raises:
        DataError: If two files have the same name.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        out: Path,
        files: Sequence[Path],
        *,
        tagged: bool = True,
        strict: bool = False,
        skip_unknown_tags: bool = False,
    ) -> None:
        self.out = out
        self._segmenter = segmenter
        self._files = {path.stem: path for path in files}
        self.names = list(self._files)
        for name, count in Counter(path.stem for path in files).items():
            if count > 1:
                raise DataError(f"{count} tar files are named {name}{TAR_SUFFIX}; rename them")
        self._source: ClassSource = "tags" if tagged else "classifier"
        self._strict, self._skip_unknown_tags = strict, skip_unknown_tags

    def read(self, name: str) -> Image:
        """Reject a gallery.

        Raises:
            DataError: Always.
        """
        raise DataError(f"{self._files[name]}: there is no gallery of tar files; unpack them")

    def _write(self, shard: Shard | None, workers: int, on_image: OnImage | None) -> WriteSummary:
        """See `OpenJob.write`; nothing is called after each image."""
        settings = self._segmenter.settings(self._source)
        classes = self._segmenter.class_names
        open_mask_folder(self.out, describe_classes(classes, self._source, settings))
        names = self.names if shard is None else shard.select(self.names)
        missing = [name for name in names if not self._is_done(name)]
        already = sum(self._manifest(name)["masks"] for name in names if name not in missing)
        written, unreadable = 0, []
        with progress() as bar:
            task = bar.add_task("tar files", total=len(missing))
            for name in missing:
                rows, reasons = self._write_tar(name, workers)
                written += len(rows)
                unreadable += reasons
                bar.advance(task)
        left = [] if shard is None else self.merge(shard.count)
        masks = self._summarize(names)
        return WriteSummary(written, already, tuple(unreadable), masks, shard, tuple(left))

    def merge(self, count: int) -> list[int]:
        """Return the numbers of the shards that are not finished; there is nothing to merge."""
        return [
            number
            for number in range(count)
            if not all(map(self._is_done, Shard(number, count).select(self.names)))
        ]

    def summarize(self) -> MaskSummary:
        """See `OpenJob.summarize`."""
        return self._summarize(self.names)

    def _write_tar(self, name: str, workers: int) -> tuple[list[dict[str, Any]], list[str]]:
        """Write masks, rows and manifest of one file; return its rows and what is unreadable."""
        rows: list[dict[str, Any]] = []
        unreadable: dict[str, str] = {}

        def fill(path: Path) -> None:
            with MaskTar(path) as archive:
                for image, row, made in self._predictions(name, workers):
                    if isinstance(made, Prediction):
                        archive.add(image, made.mask, row)
                        rows.append(row)
                    elif self._strict:
                        raise made
                    else:
                        unreadable[image] = str(made)

        target = self._path(name, TAR_SUFFIX)
        write_atomically(target, fill)
        write_text(self._path(name, ROWS_SUFFIX), "".join(map(score_line, rows)))
        manifest = {
            "images": len(rows) + len(unreadable),
            "masks": len(rows),
            "unreadable": unreadable,
            "source_bytes": self._files[name].stat().st_size,
            "masks_sha256": _sha256(target),
            "scores_sha256": _sha256(self._path(name, ROWS_SUFFIX)),
        }
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        write_text(self._path(name, JSON_SUFFIX), f"{text}\n")
        return rows, [f"{self._files[name]}: {reason}" for reason in unreadable.values()]

    def _predictions(
        self, name: str, workers: int
    ) -> Iterator[tuple[str, dict[str, Any], Prediction | DataError]]:
        """Yield name, row and prediction of each image of a file, in its order."""
        tags: dict[str, list[str]] = {}

        def inputs() -> Iterator[tuple[str, ImageInput | DataError]]:
            for sample in read_samples(self._files[name]):
                try:
                    own = None
                    if self._source == "tags":
                        tags[sample.name] = self._tags(sample, self._files[name])
                        own = tag_row(tags[sample.name], classes)
                    yield (
                        sample.name,
                        ImageInput(sample.decode(self._segmenter.value_range), own, sample.name),
                    )
                except DataError as error:
                    yield sample.name, error

        classes = self._segmenter.class_names
        with closing(predict_in_workers(self._segmenter, inputs(), workers)) as found:
            for key, made in found:
                row: dict[str, Any] = {}
                if isinstance(made, Prediction):
                    row = score_row(key, made, tags.get(key))
                    row |= describe_image(key, None, made.mask.shape)
                tags.pop(key, None)
                yield key, row, made

    def _tags(self, sample: TarSample, where: Path) -> list[str]:
        """Return the known tags of an image."""
        known = self._segmenter.class_names
        tags = sample.tags()
        unknown = [tag for tag in tags if tag not in known]
        if unknown and not self._skip_unknown_tags:
            raise DataError(
                f"{where}: {sample.name}: unknown tag '{unknown[0]}'."
                f"{did_you_mean(unknown[0], known)} This run knows: {', '.join(known)}; "
                "--skip-unknown-tags leaves out others"
            )
        return [tag for tag in tags if tag in known]

    def _is_done(self, name: str) -> bool:
        """Return whether the masks of a file are there, and the file is the same as then."""
        done = self._path(name, TAR_SUFFIX).is_file()
        return done and self._manifest(name).get("source_bytes") == self._files[name].stat().st_size

    def _manifest(self, name: str) -> Mapping[str, Any]:
        """Return the manifest of a file; empty if it is missing or damaged."""
        try:
            return read_object(self._path(name, JSON_SUFFIX), _Manifest)
        except DataError:
            return {}

    def _summarize(self, names: Sequence[str]) -> MaskSummary:
        skipped = sum(len(self._manifest(name).get("unreadable", ())) for name in names)
        rows = {
            f"{name}/{row['name']}": row
            for name in names
            for row in score_rows(self._path(name, ROWS_SUFFIX))
        }
        areas = {name: row["areas"] for name, row in rows.items() if "areas" in row}
        return summarize_rows(read_classes(self.out), rows, areas, skipped)

    def _path(self, name: str, suffix: str) -> Path:
        return self.out / f"{name}{suffix}"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
