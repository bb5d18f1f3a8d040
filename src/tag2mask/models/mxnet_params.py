"""Parameter files of MXNet, read without MXNet.

Little endian throughout. A file is the number 0x112, a zero, the arrays and their names. Both lists
begin with their length (uint64); a name is its length (uint64) and its bytes. An array is

- in the oldest files: number of axes and each axis (uint32);
- then: 0xF993FAC8, number of axes (uint32), each axis (int64);
- since 2017: 0xF993FAC9 (or ...CA), kind of storage (int32, 0 is dense), number of axes, each axis;

followed in all three by kind and number of the device and by the type of the values (int32 each),
and by the values. An array without axes ends there: it holds nothing.
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
"""NumPy's names of the value types, by MXNet's number."""
MOST_AXES = 32


class _File:
    """Bytes of one file, taken from front to back."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path = path
        self._data = data
        self._at = 0

    def skip(self, size: int) -> int:
        """Pass over `size` bytes and say where they began."""
        start = self._at
        if size > len(self._data) - start:
            raise WeightsError(
                f"{self.path}: is cut off at byte {len(self._data):,}; fetch the file again"
            )
        self._at = start + size
        return start

    def numbers(self, code: str, count: int = 1) -> tuple[int, ...]:
        """Take whole numbers of one `struct` type."""
        layout = f"<{count}{code}"
        found: tuple[int, ...] = struct.unpack_from(
            layout, self._data, self.skip(struct.calcsize(layout))
        )
        return found

    def number(self, code: str) -> int:
        """Take one whole number."""
        return self.numbers(code)[0]

    def text(self) -> str:
        """Take a name."""
        size = self.number("Q")
        start = self.skip(size)
        return self._data[start : start + size].decode("utf-8", "replace")

    def values(self, kind: str, shape: tuple[int, ...]) -> Tensor:
        """Take an array; copied, so that it outlives the file."""
        count = math.prod(shape)
        start = self.skip(count * np.dtype(kind).itemsize)
        flat = np.frombuffer(self._data, kind, count, start)
        return torch.from_numpy(flat.reshape(shape).copy())

    def foreign(self, why: str) -> WeightsError:
        """The error for content that MXNet would not have written."""
        return WeightsError(f"{self.path}: is no parameter file of MXNet ({why})")


def read_mxnet_params(path: Path) -> dict[str, Tensor]:
    """Read all arrays of a parameter file, on the CPU, in the file's order.

    Returns:
        Name -> tensor of the file's type; names such as `arg:conv0_weight` as they are.

    Raises:
        WeightsError: If the file is missing, cut off, no parameter file, or holds sparse arrays.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _arrays(_File(path, data))
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        reason = getattr(error, "strerror", None) or "it is empty"
        raise WeightsError(f"{path}: cannot be read ({reason})") from error


def _arrays(file: _File) -> dict[str, Tensor]:
    """Take everything."""
    if file.number("Q") != LIST_MAGIC:
        raise file.foreign("it begins otherwise")
    file.number("Q")
    arrays = [_array(file) for _ in range(file.number("Q"))]
    names = [file.text() for _ in range(file.number("Q"))]
    if len(names) != len(arrays):
        raise file.foreign(f"{len(arrays)} arrays have {len(names)} names")
    return dict(zip(names, arrays, strict=True))


def _array(file: _File) -> Tensor:
    """Take one array of any version."""
    shape = _shape(file)
    if not shape:
        return torch.empty(0)
    file.numbers("i", 2)  # the device it lay on
    kind = file.number("i")
    if not 0 <= kind < len(TYPES):
        raise file.foreign(f"values of an unknown type {kind}")
    return file.values(TYPES[kind], shape)


def _shape(file: _File) -> tuple[int, ...]:
    """Take the head of an array, up to and with its axes."""
    magic = file.number("I")
    axes, code = magic, "I"
    if magic in (V1_MAGIC, V2_MAGIC, V3_MAGIC):
        if magic != V1_MAGIC and file.number("i") != DENSE:
            raise WeightsError(f"{file.path}: holds sparse arrays, which are not read")
        axes, code = file.number("I"), "q"
    if axes > MOST_AXES:
        raise file.foreign(f"an array with {axes:,} axes")
    shape = file.numbers(code, axes)
    if any(size < 0 for size in shape):
        raise file.foreign(f"an array of shape {shape}")
    return shape
