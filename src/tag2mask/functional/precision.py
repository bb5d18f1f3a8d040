"""bfloat16 for forward passes without gradients, on hardware that supports it."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Literal

import torch

LabelPrecision = Literal["auto", "fp32", "bf16"]
"""Precision of passes without gradients; auto: bf16 if the hardware has instructions for it."""


@lru_cache(maxsize=4)
def has_fast_bf16(device_type: str) -> bool:
    """Return whether the device multiplies bfloat16 matrices in hardware."""
    if device_type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device_type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def runs_in_bf16(precision: LabelPrecision, device_type: str) -> bool:
    """Return whether a pass without gradients runs in bfloat16."""
    return precision == "bf16" or (precision == "auto" and has_fast_bf16(device_type))


def label_autocast(precision: LabelPrecision, device_type: str) -> AbstractContextManager[object]:
    """Return the autocast context for a forward pass without gradients.

    An enclosing context loses against `fp32` and `bf16`, and against `auto` on hardware for bf16.
    """
    if runs_in_bf16(precision, device_type):
        return torch.autocast(device_type=device_type, dtype=torch.bfloat16)
    if precision == "fp32":
        return torch.autocast(device_type=device_type, enabled=False)
    return contextlib.nullcontext()
