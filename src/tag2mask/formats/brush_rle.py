"""Label Studio's run-length code of brush masks.

A stream of bits, most significant first: the number of values (32 bits), bits per value minus 1
(5), four sizes of counts minus 1 (4 each), then runs. A run is one bit (1: a repeated value, 0:
values one by one), which of the four sizes its count has (2 bits), the count minus 1, its value or
values. The values are the RGBA channels of all pixels, row by row.

Source:
    `label_studio_sdk.converter.brush`, and thi.ng/rle-pack, whose format it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

CHANNELS = 4
COUNT_BITS = (3, 4, 8, 16)
VALUE_BITS = 8
HALF = 127
"""Largest opacity of a pixel that does not count; strokes have soft edges."""
HEADER_BITS = 32 + 5 + 4 * len(COUNT_BITS)

BoolMask = npt.NDArray[np.bool_]


def encode(mask: BoolMask) -> list[int]:
    """Encode an (H, W) mask; its pixels become white and opaque, the others transparent.

    Example:
        >>> import numpy as np
        >>> decode(encode(np.array([[True, False, True]])), (1, 3))
        array([[ True, False,  True]])
    """
    flat = mask.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=~flat[:1]))
    counts = CHANNELS * np.diff(starts, append=flat.size)
    sizes = "".join(f"{bits - 1:04b}" for bits in COUNT_BITS)
    words = [f"{CHANNELS * flat.size:032b}", f"{VALUE_BITS - 1:05b}", sizes]
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        words.append(_run(count, 255 if flat[start] else 0))
    bits = np.frombuffer("".join(words).encode(), dtype=np.uint8) - ord("0")
    packed: list[int] = np.packbits(bits).tolist()
    return packed


def decode(code: Sequence[int], size: tuple[int, int]) -> BoolMask:
    """Decode a mask of (H, W) `size`; True where the brush is more than half opaque.

    Raises:
        ValueError: If the code is damaged or has another number of pixels.
    """
    text = "".join(f"{byte:08b}" for byte in code)
    count, value_bits, count_bits, at = _header(text)
    if count != CHANNELS * size[0] * size[1]:
        raise ValueError(f"{count} values are not the 4 channels of {size[1]}x{size[0]} px")
    values = np.zeros(count, dtype=np.uint8)
    done = 0
    while done < count:
        repeated = text[at : at + 1] == "1"
        width = count_bits[int(text[at + 1 : at + 3] or "0", 2)]
        at += 3 + width
        length = int(text[at - width : at] or "0", 2) + 1
        steps = 1 if repeated else length
        if at + steps * value_bits > len(text) or done + length > count:
            raise ValueError("it ends in the middle of a run")
        one_by_one = [
            int(text[at + step * value_bits : at + (step + 1) * value_bits], 2)
            for step in range(steps)
        ]
        values[done : done + length] = one_by_one[0] if repeated else one_by_one
        at += steps * value_bits
        done += length
    opaque: BoolMask = values.reshape(*size, CHANNELS)[..., CHANNELS - 1] > HALF
    return opaque


def _run(count: int, value: int) -> str:
    """Write `count` equal values as bits; a count above 65,536 needs several runs."""
    largest = 1 << COUNT_BITS[-1]
    full, rest = divmod(count, largest)
    bits = f"111{largest - 1:016b}{value:08b}" * full
    if rest:
        which = next(at for at, width in enumerate(COUNT_BITS) if rest <= 1 << width)
        bits += f"1{which:02b}{rest - 1:0{COUNT_BITS[which]}b}{value:08b}"
    return bits


def _header(text: str) -> tuple[int, int, list[int], int]:
    """Read number of values, bits per value, sizes of counts, and where the runs start."""
    if len(text) < HEADER_BITS:
        raise ValueError("it is shorter than its header")
    sizes = [int(text[37 + 4 * at : 41 + 4 * at], 2) + 1 for at in range(len(COUNT_BITS))]
    return int(text[:32], 2), int(text[32:37], 2) + 1, sizes, HEADER_BITS
