"""Writer for MXNet parameter files in each format."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

MXNET_TYPES = {
    "float32": 0,
    "float64": 1,
    "float16": 2,
    "uint8": 3,
    "int32": 4,
    "int8": 5,
    "int64": 6,
}


def array_bytes(array: NDArray[np.generic], version: int) -> bytes:
    if version == 0:
        header = struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}I", *array.shape)
    else:
        magic = {1: 0xF993FAC8, 2: 0xF993FAC9, 3: 0xF993FACA}[version]
        storage = b"" if version == 1 else struct.pack("<i", 0)
        header = struct.pack("<I", magic) + storage
        header += struct.pack("<I", array.ndim) + struct.pack(f"<{array.ndim}q", *array.shape)
    device = struct.pack("<ii", 2, 1)  # the second GPU
    kind = struct.pack("<i", MXNET_TYPES[array.dtype.name])
    return header + device + kind + array.astype(array.dtype.newbyteorder("<")).tobytes()


def list_bytes(arrays: Mapping[str, NDArray[np.generic]], version: int) -> bytes:
    parts = [struct.pack("<QQQ", 0x112, 0, len(arrays))]
    parts += [array_bytes(array, version) for array in arrays.values()]
    parts.append(struct.pack("<Q", len(arrays)))
    for name in arrays:
        parts.append(struct.pack("<Q", len(name.encode())) + name.encode())
    return b"".join(parts)
