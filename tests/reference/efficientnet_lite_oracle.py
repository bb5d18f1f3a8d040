"""EfficientNet-Lite in evaluation mode in NumPy, from the block strings of the TensorFlow release.

Depths, widths and kernels are read off the weights, so only strides come from the strings: stages
s22 at the second, third, fourth and sixth place, each on its first block.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
State = Mapping[str, Array]
BLOCKS = (
    "r1_k3_s11_e1_i32_o16",
    "r2_k3_s22_e6_i16_o24",
    "r2_k5_s22_e6_i24_o40",
    "r3_k3_s22_e6_i40_o80",
    "r3_k5_s11_e6_i80_o112",
    "r4_k5_s22_e6_i112_o192",
    "r1_k3_s11_e6_i192_o320",
)
EPS = 1e-3


def published_logits(image: Array, state: State, depths: list[int]) -> Array:
    """Classify one normalized (3, H, W) image at the published stride 32; (classes,) logits."""
    pooled = published_head(image, state, depths).mean(axis=(1, 2))
    return state["_fc.weight"] @ pooled + state["_fc.bias"]


def published_head(image: Array, state: State, depths: list[int]) -> Array:
    """Compute the (1280, h, w) map before pooling."""
    maps = relu6(norm(dense(image, state["_conv_stem.weight"], 2), state, "_bn0"))
    number = 0
    for text, depth in zip(BLOCKS, depths, strict=True):
        for position in range(depth):
            stride = int(text.split("_")[2][1]) if position == 0 else 1
            maps = block(maps, state, f"_blocks.{number}.", stride)
            number += 1
    assert f"_blocks.{number}._bn2.weight" not in state
    return relu6(norm(dense(maps, state["_conv_head.weight"], 1), state, "_bn1"))


def block(maps: Array, state: State, name: str, stride: int) -> Array:
    """Expand, filter each channel, project; add the input where shapes agree."""
    out = maps
    if f"{name}_expand_conv.weight" in state:
        out = relu6(norm(dense(out, state[f"{name}_expand_conv.weight"], 1), state, f"{name}_bn0"))
    out = depthwise(out, state[f"{name}_depthwise_conv.weight"], stride)
    out = relu6(norm(out, state, f"{name}_bn1"))
    out = norm(dense(out, state[f"{name}_project_conv.weight"], 1), state, f"{name}_bn2")
    return out + maps if out.shape == maps.shape else out


def norm(maps: Array, state: State, name: str) -> Array:
    """Apply BatchNorm with running statistics."""
    gain = state[f"{name}.weight"] / np.sqrt(state[f"{name}.running_var"] + EPS)
    offset = state[f"{name}.bias"] - gain * state[f"{name}.running_mean"]
    return maps * gain[:, None, None] + offset[:, None, None]


def relu6(maps: Array) -> Array:
    return maps.clip(0, 6)


def taps(maps: Array, kernel: int, stride: int) -> Array:
    """Return (kernel, kernel, D, h, w): the input below every tap, with TensorFlow's SAME."""
    sides = [-(-size // stride) for size in maps.shape[1:]]
    before, after = [], []
    for size, side in zip(maps.shape[1:], sides, strict=True):
        missing = max((side - 1) * stride + kernel - size, 0)
        before.append(missing // 2)
        after.append(missing - missing // 2)
    padded = np.pad(maps, ((0, 0), (before[0], after[0]), (before[1], after[1])))
    return np.stack(
        [
            [
                padded[:, row : row + sides[0] * stride, column : column + sides[1] * stride][
                    :, ::stride, ::stride
                ]
                for column in range(kernel)
            ]
            for row in range(kernel)
        ]
    )


def dense(maps: Array, weight: Array, stride: int) -> Array:
    return np.einsum("oiyx,yxihw->ohw", weight, taps(maps, weight.shape[-1], stride), optimize=True)


def depthwise(maps: Array, weight: Array, stride: int) -> Array:
    return np.einsum("dyx,yxdhw->dhw", weight[:, 0], taps(maps, weight.shape[-1], stride))
