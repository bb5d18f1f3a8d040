"""A context in which any look of the host at a tensor's value is an error."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ASKING = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten.is_nonzero.default,
}
"""What waits for a device until it is done: a value read, or a size that depends on values."""


class NoWaiting(TorchDispatchMode):
    """Refuses operations for which the host would have to wait for the device."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in ASKING:
            raise AssertionError(f"the host waits: {func}")
        return func(*args, **(kwargs or {}))
