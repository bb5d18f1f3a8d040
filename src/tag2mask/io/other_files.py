"""Files that are no images, by kind, and what makes images of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_ADDRESS = re.compile(r"(https?|ftp|s3|gs|file|data):", re.IGNORECASE)


class FileKind(NamedTuple):
    """A kind of file that is no image."""

    name: str
    plural: str
    suffixes: frozenset[str]
    advice: str
    """What to do with such a file to get images."""


def _kind(name: str, suffixes: str, advice: str, plural: str = "") -> FileKind:
    return FileKind(name, plural or f"{name}s", frozenset(suffixes.split()), advice)


TEXT = _kind(
    "text file",
    ".txt .csv .tsv .json .jsonl .xml .md .yaml .yml .html .log .ini .xls .xlsx .ods .parquet",
    "give images, or a folder of images",
)
FILE_KINDS = (
    _kind(
        "video",
        ".mp4 .mov .avi .mkv .webm .m4v .mpg .mpeg .wmv .flv .mts .3gp",
        "extract images first, for example: ffmpeg -i VIDEO -vf fps=1 %05d.jpg",
    ),
    _kind("archive", ".zip .tar .gz .tgz .bz2 .xz .7z .rar .zst", "unpack it first"),
    _kind(
        "raw camera file",
        ".cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .pef",
        "export it as JPEG or TIFF first",
    ),
    _kind("document", ".pdf .svg .psd .ai .eps .doc .docx .ppt .pptx .xcf", "export it as PNG"),
    _kind(
        "scientific image",
        ".dcm .nii .nrrd .mha .svs .ndpi .mrxs .czi .lif .vsi .jp2 .exr .hdr .fits .h5 .hdf5 .npy "
        ".npz .mat .pkl .pt",
        "save it as PNG or TIFF first",
    ),
    TEXT,
)
"""Each suffix belongs to one kind."""
OTHER = FileKind("other file", "other files", frozenset(), "only images are read")


def kind_of(path: Path) -> FileKind:
    """Return the kind of a file that is no image, by its suffix."""
    suffix = path.suffix.lower()
    return next((kind for kind in FILE_KINDS if suffix in kind.suffixes), OTHER)


def describe_file(path: Path, wanted: str) -> str:
    """Say what a file is in place of what was wanted, and what to do about it.

    Args:
        path: A file that is no image.
        wanted: Such as "an image".
    """
    kind = kind_of(path)
    article = "an" if kind.name[0] in "aeiou" else "a"
    what = "" if kind is OTHER else f"{article} {kind.name}, "
    return f"{what}not {wanted}; {kind.advice}".replace("VIDEO", path.name)


def by_kind(paths: Iterable[Path]) -> dict[FileKind, list[Path]]:
    """Sort files that are no images by kind, in the order of `FILE_KINDS`."""
    found: dict[FileKind, list[Path]] = {kind: [] for kind in (*FILE_KINDS, OTHER)}
    for path in paths:
        found[kind_of(path)].append(path)
    return {kind: files for kind, files in found.items() if files}


def is_address(path: Path) -> bool:
    """Return whether a path was meant as an address of the web or of a cloud storage."""
    return _ADDRESS.match(path.as_posix()) is not None and not path.exists()
