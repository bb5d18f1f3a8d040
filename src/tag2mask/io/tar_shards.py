"""WebDataset tar files: images with the tags beside them in, masks with the scores beside them out.

```
IN/000.tar    cat/17.jpg  cat/17.json {"tags": ["cat"]}    the files of an image stand together
OUT/000.tar   cat/17.png  cat/17.json                      mask and row of scores
```

The name of an image is its path up to the first dot of the file name, as in WebDataset.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, NamedTuple, Self

from tag2mask.errors import DataError, is_printable
from tag2mask.io.depth import ValueRange
from tag2mask.io.images import is_image_name, read_image
from tag2mask.io.json_files import parse_json
from tag2mask.io.masks import save_mask
from tag2mask.types import Image, Mask

TAR_SUFFIX = ".tar"
JSON_SUFFIX = ".json"
MOST_JSON_BYTES = 2**20
"""Largest JSON file beside an image."""


class TarSample(NamedTuple):
    """One image of a tar file, not decoded."""

    name: str
    suffix: str
    """Of the image file, such as `.jpg`."""
    data: bytes
    values: Mapping[str, Any]
    """What the JSON file beside the image says; empty without one."""

    def decode(self, value_range: ValueRange | None = None) -> Image:
        """Decode the image as `read_image` does.

        Args:
            value_range: See `read_image`.

        Raises:
            DataError: If it cannot be read.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder, f"image{self.suffix}")
            path.write_bytes(self.data)
            try:
                return read_image(path, value_range)
            except DataError as error:
                reason = str(error).removeprefix(f"{path}: ")
                raise DataError(f"{self.name}{self.suffix}: {reason}") from error

    def tags(self) -> list[str]:
        """Return the tags of the image.

        Raises:
            DataError: If there is no list of tags beside it.
        """
        tags = self.values.get("tags")
        if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
            raise DataError(f'{self.name}{JSON_SUFFIX}: needs {{"tags": ["cat", "dog"]}}')
        return tags


def read_samples(path: Path) -> Iterator[TarSample]:
    """Yield the images of a tar file in its order, with the JSON file beside each.

    Raises:
        DataError: If the file is damaged, or the name of an image would leave a folder that the
            masks are unpacked into.
    """
    try:
        with tarfile.open(path, "r:*") as archive:
            yield from _grouped(path, archive)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DataError(f"{path}: cannot be read as a tar file ({error})") from error


def _grouped(path: Path, archive: tarfile.TarFile) -> Iterator[TarSample]:
    name, image, values = "", None, {}  # type: str, tuple[str, bytes] | None, dict[str, Any]
    for member in archive:
        key, suffix = _split(member.name)
        if not member.isreg() or not key:
            continue
        inside = PurePosixPath(key)
        if inside.is_absolute() or ".." in inside.parts or not is_printable(key):
            raise DataError(
                f"{path}: the name {member.name!a} leaves its folder or has control characters; "
                "rename the file"
            )
        if key != name:
            if image is not None:
                yield TarSample(name, *image, values)
            name, image, values = key, None, {}
        stream = archive.extractfile(member)
        assert stream is not None, "a regular file"
        if is_image_name(Path(member.name)):
            image = suffix, stream.read()
        elif suffix == JSON_SUFFIX:
            values = _json_object(path, member, stream.read(MOST_JSON_BYTES + 1))
    if image is not None:
        yield TarSample(name, *image, values)


def _split(name: str) -> tuple[str, str]:
    """Split a path at the first dot of its file name, as WebDataset does."""
    folder, _, file = name.rpartition("/")
    stem, dot, rest = file.partition(".")
    return (f"{folder}/{stem}" if folder and stem else stem), f"{dot}{rest}".lower()


def _json_object(path: Path, member: tarfile.TarInfo, data: bytes) -> dict[str, Any]:
    try:
        values = parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path}: {member.name!a} is not valid JSON") from error
    return values if isinstance(values, dict) else {}


class MaskTar:
    """A tar file of masks and rows, the same bytes at every attempt; a context manager.

    Args:
        path: File to write.
    """

    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "w")  # noqa: SIM115 closed by __exit__
        self._folder = TemporaryDirectory()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()
        self._archive.close()

    def add(self, name: str, mask: Mask, row: Mapping[str, Any]) -> None:
        """Add the mask of an image, and its row of scores."""
        path = Path(self._folder.name, "mask.png")
        save_mask(mask, path)
        self._add(f"{name}.png", path.read_bytes())
        self._add(f"{name}{JSON_SUFFIX}", json.dumps(row, ensure_ascii=False).encode("utf-8"))

    def _add(self, name: str, data: bytes) -> None:
        member = tarfile.TarInfo(name)  # its time, owner and rights are always the same
        member.size = len(data)
        self._archive.addfile(member, io.BytesIO(data))
