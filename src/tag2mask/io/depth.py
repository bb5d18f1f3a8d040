"""Scale pixels of more than 8 bits to 8 bits, by a given range or by the image's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

ValueRange = tuple[float, float]
"""Values that become 0 and 255; (0, 4095) for 12 bits."""
SHARES = (0.001, 0.999)
"""An image's own range leaves out this share of its darkest and of its brightest values, which are
often dead and hot pixels of the sensor."""
_SAMPLED = 1 << 22
_BAND = 1 << 22


def scale_to_8_bits(
    values: npt.NDArray[Any], value_range: ValueRange | None = None
) -> npt.NDArray[np.uint8]:
    """Scale the values of an image to 0..255; values outside the range are clipped.

    Args:
        values: (H, W) or (H, W, C) numbers. The channels of an image share one range.
        value_range: None: see `own_range`.

    Example:
        >>> scale_to_8_bits(np.array([[0, 2048, 4095]], dtype=np.uint16), (0, 4095)).tolist()
        [[0, 128, 255]]
        >>> scale_to_8_bits(np.array([[100, 600, 1100]], dtype=np.uint16)).tolist()
        [[0, 128, 255]]
    """
    low, high = value_range or own_range(values)
    scaled = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _BAND // max(1, values[:1].size))
    for top in range(0, len(values), rows):
        band = (values[top : top + rows].astype(np.float32) - low) * (255 / (high - low))
        scaled[top : top + rows] = np.nan_to_num(band).round().clip(0, 255)
    return scaled


def own_range(values: npt.NDArray[Any]) -> ValueRange:
    """Return the range of an image's values, without the darkest and the brightest thousandth.

    An image of one value has the range of its number of bits, 8 or 16.
    """
    flat = values.reshape(-1)
    sample = flat[:: max(1, flat.size // _SAMPLED)]
    if sample.dtype.kind == "f":
        sample = sample[np.isfinite(sample)]
    if not sample.size:
        return 0.0, 1.0
    low = float(np.quantile(sample, SHARES[0], method="lower"))
    high = float(np.quantile(sample, SHARES[1], method="higher"))
    if high > low:
        return low, high
    return (0.0, 255.0) if high <= 255 else (0.0, max(high, 65_535.0))
