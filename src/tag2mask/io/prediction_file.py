"""Write one prediction to a file: mask, arrays or overlay."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image as PILImage

from tag2mask.errors import DataError
from tag2mask.io.files import write_atomically
from tag2mask.io.masks import save_mask

if TYPE_CHECKING:
    from tag2mask.types import Prediction, SaveFormat

SUFFIXES: dict[str, SaveFormat] = {
    ".png": "png",
    ".npy": "npy",
    ".npz": "npz",
    ".jpg": "overlay",
    ".jpeg": "overlay",
    ".webp": "overlay",
}
"""Suffix -> format that it stands for. JPEG and WebP lose mask values, so they are overlays."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""Suffixes of an overlay."""


def save_prediction(prediction: Prediction, path: Path, format_: SaveFormat | None = None) -> Path:
    """Write a prediction beside its target, then rename it.

    Args:
        prediction: What to write.
        path: Target; its folder is created if it is missing.
        format_: See `Prediction.save`.

    Raises:
        DataError: If neither format nor suffix says how to write, or they contradict each other.
        RunError: If the file cannot be written.
    """
    chosen = _format_of(path, format_)
    write_atomically(path, lambda temporary: _WRITERS[chosen](prediction, temporary))
    return path


def _format_of(path: Path, format_: SaveFormat | None) -> SaveFormat:
    """Return the format of a file; its suffix must fit."""
    suffix = path.suffix.lower()
    chosen = format_ or SUFFIXES.get(suffix)
    if chosen is None:
        raise DataError(
            f"{path}: the suffix says no format; use {', '.join(SUFFIXES)}, or export masks to "
            "other formats with 'tag2mask export'"
        )
    if chosen not in SUFFIXES.values():
        raise DataError(
            f"{path}: unknown format '{chosen}'. Known: png, npy, npz, overlay; 'tag2mask export' "
            "writes the formats of labeling tools"
        )
    fitting = PICTURES if chosen == "overlay" else (f".{chosen}",)
    if suffix not in fitting:
        raise DataError(f"{path}: a file of format '{chosen}' ends in {' or '.join(fitting)}")
    return chosen


def _write_mask(prediction: Prediction, path: Path) -> None:
    save_mask(prediction.mask, path)


def _write_mask_array(prediction: Prediction, path: Path) -> None:
    np.save(path, prediction.mask)


def _write_arrays(prediction: Prediction, path: Path) -> None:
    names = prediction.class_names
    arrays: dict[str, Any] = {
        "mask": prediction.mask,
        "class_names": np.array(names, dtype=np.str_),
        "scores": np.array([prediction.scores.get(name, np.nan) for name in names], np.float32),
    }
    if prediction.cam is not None:
        arrays["cam"] = prediction.cam
    np.savez_compressed(path, **arrays)


def _write_overlay(prediction: Prediction, path: Path) -> None:
    PILImage.fromarray(prediction.overlay()).save(path)


_WRITERS: dict[SaveFormat, Callable[[Prediction, Path], None]] = {
    "png": _write_mask,
    "npy": _write_mask_array,
    "npz": _write_arrays,
    "overlay": _write_overlay,
}
