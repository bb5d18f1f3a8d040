"""Networks whose weights come from a file need no random numbers to start with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset(
    {
        *("normal_", "uniform_", "random_", "bernoulli_", "exponential_", "trunc_normal_"),
        *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_"),
    }
)
"""Functions that fill a tensor with random numbers in place, of `Tensor` and of `nn.init`.

By name, because transformers replaces those of `nn.init` by functions of its own.
"""


class WithoutDraws(TorchFunctionMode):
    """Fill tensors with 0 where they would be filled with random numbers, in this thread.

    They must not stay as they are: `trunc_normal_` draws until no value is out of bounds, which
    never ends if the memory of a new tensor holds such values.

    Build a network inside this context if a file fills all of its weights afterwards. Nothing is
    drawn from the global generator, so loading a network does not change what the rest of a
    program draws.

    Example:
        >>> import torch
        >>> before = torch.get_rng_state()
        >>> with WithoutDraws():
        ...     layer = torch.nn.Linear(3, 3)
        >>> torch.equal(torch.get_rng_state(), before)
        True
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Write zeros in place of a draw; run everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") in _DRAWS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            tensor.detach().zero_()
            return tensor
        return func(*args, **kwargs)
