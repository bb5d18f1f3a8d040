from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.models.mxnet_file import MXNET_TYPES, array_bytes, list_bytes

from tag2mask.errors import WeightsError
from tag2mask.models.mxnet_params import read_mxnet_params

ARRAYS = {
    "arg:conv_weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "aux:größe": np.array([0.5, -1.0], dtype=np.float32),
}


@pytest.mark.parametrize("version", [0, 1, 2, 3])
def test_arrays_are_read_with_names_and_shapes(tmp_path: Path, version: int) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(list_bytes(ARRAYS, version))
    arrays = read_mxnet_params(path)
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert torch.equal(arrays[name], torch.from_numpy(array))


def test_file_written_by_hand_is_read(tmp_path: Path) -> None:
    """One float 1.0 called "w", in the oldest format, every byte by hand."""
    path = tmp_path / "w.params"
    path.write_bytes(
        bytes.fromhex(
            "1201000000000000 0000000000000000"  # magic 0x112, reserved
            "0100000000000000"  # one array
            "01000000 01000000"  # one axis of one
            "01000000 00000000"  # CPU 0
            "00000000"  # float32
            "0000803f"  # 1.0
            "0100000000000000 0100000000000000 77"  # one name of one letter: w
        )
    )
    assert read_mxnet_params(path) == {"w": torch.tensor([1.0])}


@pytest.mark.parametrize("kind", MXNET_TYPES)
def test_every_dtype_is_read(tmp_path: Path, kind: str) -> None:
    path, values = tmp_path / "a.params", np.array([1, 2, 100], dtype=kind)
    path.write_bytes(list_bytes({"x": values}, 2))
    assert torch.equal(read_mxnet_params(path)["x"], torch.from_numpy(values))


def test_empty_array_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.params"
    empty = struct.pack("<IiI", 0xF993FAC9, 0, 0)
    rest = array_bytes(np.ones(2, np.float32), 2)
    names = struct.pack("<QQcQc", 2, 1, b"a", 1, b"b")
    path.write_bytes(struct.pack("<QQQ", 0x112, 0, 2) + empty + rest + names)
    arrays = read_mxnet_params(path)
    assert arrays["a"].numel() == 0
    assert arrays["b"].tolist() == [1, 1]


def test_truncated_files_are_rejected(tmp_path: Path) -> None:
    path, complete = tmp_path / "a.params", list_bytes(ARRAYS, 2)
    for size in range(1, len(complete)):
        path.write_bytes(complete[:size])
        with pytest.raises(WeightsError, match=rf"a\.params: truncated at byte {size}; download"):
            read_mxnet_params(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read .it is empty"),
        (b"PK\x03\x04 not an MXNet file", "wrong first bytes"),
        (struct.pack("<QQQI", 0x112, 0, 1, 77), "an array with 77 axes"),
        (struct.pack("<QQQIiIq", 0x112, 0, 1, 0xF993FAC9, 0, 1, -5), r"shape \(-5,\)"),
        (struct.pack("<QQQIi", 0x112, 0, 1, 0xF993FAC9, 1), "contains sparse arrays"),
        (struct.pack("<QQQIIiii", 0x112, 0, 1, 1, 1, 1, 0, 9), "unknown dtype 9"),
        (list_bytes(ARRAYS, 1)[:-50] + struct.pack("<Q", 0), "2 arrays but 0 names"),
    ],
)
def test_invalid_files_are_rejected_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "a.params"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        read_mxnet_params(path)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.params: cannot be read \(No such file"):
        read_mxnet_params(tmp_path / "none.params")
