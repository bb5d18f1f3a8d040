import contextlib

import torch

from tag2mask.functional.precision import has_fast_bf16, label_autocast


def test_bf16_is_used_on_request_and_automatically_only_with_hardware_support() -> None:
    with label_autocast("bf16", "cpu"):
        assert torch.is_autocast_enabled("cpu")
    with label_autocast("fp32", "cpu"):
        assert not torch.is_autocast_enabled("cpu")
    with label_autocast("auto", "cpu"):
        assert torch.is_autocast_enabled("cpu") == has_fast_bf16("cpu")


def test_unknown_device_has_no_fast_bf16() -> None:
    assert not has_fast_bf16("meta")
    assert isinstance(label_autocast("auto", "meta"), contextlib.nullcontext)
