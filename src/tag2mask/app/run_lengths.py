"""Masks as numbers between server and browser: `[value, length, value, length, ...]`.

Runs go through rows from top to bottom and cross their ends. A picture format would need a decoder
whose colors browsers may change; numbers arrive as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tag2mask.app.refusals import RefusedError
from tag2mask.types import IGNORE, Mask


def encode_runs(mask: Mask) -> list[int]:
    """Return the runs of an (H, W) mask.

    Example:
        >>> encode_runs(np.array([[0, 0, 2], [2, 2, 255]], dtype=np.uint8))
        [0, 2, 2, 3, 255, 1]
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat)) + 1
    starts = np.concatenate(([0], starts))
    lengths = np.diff(np.concatenate((starts, [flat.size])))
    pairs: list[int] = np.stack((flat[starts], lengths), axis=1).ravel().tolist()
    return pairs


def decode_runs(runs: Sequence[int], size: tuple[int, int], num_foreground: int) -> Mask:
    """Return the (H, W) mask of runs.

    Args:
        runs: From a browser; everything about them is checked.
        size: (H, W) of the image.
        num_foreground: F; values 0..F and 255 are allowed.

    Raises:
        RefusedError: If the runs do not fill the image exactly, or have a value that is no class.
    """
    if len(runs) % 2 or len(runs) > 2 * size[0] * size[1]:
        raise RefusedError("the mask is damaged (its runs are not pairs); reload the page")
    pairs = np.array(runs, dtype=np.int64).reshape(-1, 2)
    values, lengths = pairs[:, 0], pairs[:, 1]
    if (lengths < 1).any() or (lengths > size[0] * size[1]).any():
        raise RefusedError("the mask is damaged (a run is empty or too long); reload the page")
    if lengths.sum() != size[0] * size[1]:
        raise RefusedError(
            f"the mask has {lengths.sum():,} pixels, but the image {size[1]}x{size[0]}; reload the "
            "page"
        )
    unknown = values[((values < 0) | (values > num_foreground)) & (values != IGNORE)]
    if unknown.size:
        raise RefusedError(
            f"the mask has the value {unknown[0]}, which is no class; reload the page"
        )
    mask: Mask = np.repeat(values.astype(np.uint8), lengths).reshape(size)
    return mask
