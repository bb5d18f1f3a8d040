"""A context in which reading a tensor's value on the host is an error."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

SYNCHRONIZING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.is_nonzero.default,
}
"""Operations that wait for the device: they read a value, or their output size depends on one."""


class NoWaiting(TorchDispatchMode):
    """Forbid operations for which the host waits for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in SYNCHRONIZING:
            raise AssertionError(f"the host waits: {func}")
        return func(*args, **(kwargs or {}))
