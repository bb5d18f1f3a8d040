"""Sizes of images and maps in whole pixels, also while `torch.export` records them as symbols.

During export a size stands for every size. A comparison would fix it, and Python's `max`, `int` and
`round` would replace it by the size of the example; the functions here do neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import torch

MAX_DENOMINATOR = 1000
"""A scale is read as a fraction up to this denominator where sizes are symbols."""
MAX_SIDE_PX = 1 << 20
"""Limit of a side, for `torch.export`, which must know a range."""
# torch 2.6 has only the second, which is true while torch.compile works, too
_flag = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)


def is_exporting() -> bool:
    """Return whether sizes are symbols now, so that no comparison may depend on them."""
    return bool(_flag())


def at_least(side: int, minimum: int) -> int:
    """Return the larger of a side and a minimum."""
    if type(side) is int:
        return max(side, minimum)
    return new_symbol(_larger(side, minimum), minimum)


def new_symbol(side: int, minimum: int) -> int:
    """Replace the formula of a size by a symbol, so that formulas do not grow from layer to layer.

    Args:
        side: A formula of symbols.
        minimum: Of its values.
    """
    symbol = torch.ops.aten.scalar_tensor.default(side, dtype=torch.int64).item()
    torch._check(symbol >= minimum)  # type: ignore[no-untyped-call]  # torch has no types here
    torch._check(symbol <= MAX_SIDE_PX)  # type: ignore[no-untyped-call]
    return cast(int, symbol)


def scaled_side(side: int, scale: float) -> int:
    """Multiply a side by `scale`; round down, to 1 at least.

    Example:
        >>> scaled_side(101, 0.5)
        50
    """
    if not is_exporting():
        return max(1, int(side * scale))
    ratio = Fraction(scale).limit_denominator(MAX_DENOMINATOR)
    return at_least(side * ratio.numerator // ratio.denominator, 1)


def limited_size(
    size: Sequence[int], long_side: int | None, max_side: int | None, *, round_down: bool = False
) -> tuple[int, int]:
    """Scale (H, W) so that the long side is `long_side`, or `max_side` if that is smaller.

    Args:
        size: (H, W) of the image.
        long_side: In pixels; None keeps the image's own.
        max_side: In pixels; None sets no limit.
        round_down: Round the other side down, not to the nearest whole number.

    Example:
        >>> limited_size((375, 500), None, 100), limited_size((375, 500), None, None)
        ((75, 100), (375, 500))
    """
    height, width = size
    if not (long_side or max_side):
        return height, width
    longest = _larger(height, width)
    side = long_side or longest
    if max_side:
        side = _smaller(side, max_side)
    divide = _floor if round_down else _nearest
    return (
        at_least(divide(height * side, longest), 1),
        at_least(divide(width * side, longest), 1),
    )


def _larger(one: int, other: int) -> int:
    """Return the larger of two sides."""
    return cast(int, torch.sym_max(one, other))  # type: ignore[no-untyped-call]


def _smaller(one: int, other: int) -> int:
    """Return the smaller of two sides."""
    return cast(int, torch.sym_min(one, other))  # type: ignore[no-untyped-call]


def _floor(dividend: int, divisor: int) -> int:
    """Divide and round down."""
    return dividend // divisor


def _nearest(dividend: int, divisor: int) -> int:
    """Divide and round to the nearest whole number, halves to the even one, as `round` does.

    Example:
        >>> [_nearest(dividend, 2) for dividend in (1, 3, 5, 6)]
        [0, 2, 2, 3]
    """
    between = 2 * dividend - divisor  # halves are where this is a multiple of twice the divisor
    step = 4 * divisor
    # Every dividend is positive, because ONNX rounds quotients of negative numbers up.
    up_or_down = (between + 2 * step - 1) // step - (between + step) // step
    return (2 * dividend + divisor) // (2 * divisor) + up_or_down - 1
