"""Reader for MXNet parameter files that does not need MXNet.

All numbers are little endian. A file consists of 0x112, a zero (uint64 each), the arrays and their
names. Both lists start with their length (uint64). A name is its length (uint64) and its bytes. An
array starts with its shape:

- oldest files: number of axes and each axis (uint32);
- later: 0xF993FAC8, number of axes (uint32), each axis (int64);
- since 2017: 0xF993FAC9 or 0xF993FACA, storage type (int32, 0 is dense), number of axes, each axis.

Device type, device id and dtype (int32 each) follow, and then the values. An array without axes
ends after its shape.
"""

from __future__ import annotations

import math
import mmap
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tag2mask.errors import WeightsError

LIST_MAGIC = 0x112
V1_MAGIC, V2_MAGIC, V3_MAGIC = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
DENSE = 0
TYPES = ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8")
"""NumPy names of the dtypes, indexed by MXNet's number."""
MAX_AXES = 32


class _File:
    """A file that is read from front to back."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self._data = data
        self._position = 0

    def skip(self, size: int) -> int:
        """Skip `size` bytes and return their start."""
        start = self._position
        if size > len(self._data) - start:
            raise WeightsError(
                f"{self.path}: truncated at byte {len(self._data):,}; download the file again"
            )
        self._position = start + size
        return start

    def numbers(self, code: str, count: int = 1) -> tuple[int, ...]:
        """Read integers of one `struct` type."""
        layout = f"<{count}{code}"
        values: tuple[int, ...] = struct.unpack_from(
            layout, self._data, self.skip(struct.calcsize(layout))
        )
        return values

    def number(self, code: str) -> int:
        """Read one integer."""
        return self.numbers(code)[0]

    def text(self) -> str:
        """Read a name."""
        size = self.number("Q")
        start = self.skip(size)
        return self._data[start : start + size].decode("utf-8", "replace")

    def values(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """Read an array as a copy, so that it outlives the file."""
        count = math.prod(shape)
        start = self.skip(count * np.dtype(kind).itemsize)
        flat = np.frombuffer(self._data, kind, count, start)
        return torch.from_numpy(flat.reshape(shape).copy())

    def invalid(self, reason: str) -> WeightsError:
        """Return the error for content that MXNet does not write."""
        return WeightsError(f"{self.path}: not an MXNet parameter file ({reason})")


def read_mxnet_params(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a parameter file in the file's order.

    Returns:
        Name -> CPU tensor of the file's dtype; names are unchanged, such as `arg:conv0_weight`.

    Raises:
        WeightsError: If the file is missing, truncated, not a parameter file, or has sparse arrays.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _arrays(_File(path, data))
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or "it is empty"
        raise WeightsError(f"{path}: cannot be read ({reason})") from error


def _arrays(file: _File) -> dict[str, Tensor]:
    """Read the complete file."""
    if file.number("Q") != LIST_MAGIC:
        raise file.invalid("wrong first bytes")
    file.number("Q")
    arrays = [_array(file) for _ in range(file.number("Q"))]
    names = [file.text() for _ in range(file.number("Q"))]
    if len(names) != len(arrays):
        raise file.invalid(f"{len(arrays)} arrays but {len(names)} names")
    return dict(zip(names, arrays, strict=True))


def _array(file: _File) -> Tensor:
    """Read one array of any version."""
    shape = _shape(file)
    if not shape:
        return torch.empty(0)
    file.numbers("i", 2)  # device type and id
    kind = file.number("i")
    if not 0 <= kind < len(TYPES):
        raise file.invalid(f"unknown dtype {kind}")
    return file.values(TYPES[kind], shape)


def _shape(file: _File) -> tuple[int, ...]:
    """Read the shape of an array."""
    magic = file.number("I")
    axes, code = magic, "I"
    if magic in (V1_MAGIC, V2_MAGIC, V3_MAGIC):
        if magic != V1_MAGIC and file.number("i") != DENSE:
            raise WeightsError(f"{file.path}: contains sparse arrays, which are not supported")
        axes, code = file.number("I"), "q"
    if axes > MAX_AXES:
        raise file.invalid(f"an array with {axes:,} axes")
    shape = file.numbers(code, axes)
    if any(size < 0 for size in shape):
        raise file.invalid(f"an array of shape {shape}")
    return shape
