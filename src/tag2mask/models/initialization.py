"""Networks whose weights come from a file need no random numbers to start with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

_DRAWS = frozenset(
    {
        *(Tensor.normal_, Tensor.uniform_, Tensor.random_, Tensor.bernoulli_, Tensor.exponential_),
        *(nn.init.normal_, nn.init.uniform_, nn.init.kaiming_uniform_, nn.init.kaiming_normal_),
        *(nn.init.trunc_normal_, nn.init.xavier_uniform_, nn.init.xavier_normal_),
    }
)
"""Functions that fill a tensor with random numbers in place."""


class WithoutDraws(TorchFunctionMode):
    """Fill tensors with 0 where they would be filled with random numbers, in this thread.

    They must not stay as they are: `trunc_normal_` draws until no value is out of bounds, which
    never ends if the memory of a new tensor holds such values.

    Build a network inside this context if a file fills all of its weights afterwards. Nothing is
    drawn from the global generator, so loading a network does not change what the rest of a
    program draws.

    Example:
        >>> before = torch.get_rng_state()
        >>> with WithoutDraws():
        ...     layer = nn.Linear(3, 3)
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
        if func in _DRAWS:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            tensor.detach().zero_()
            return tensor
        return func(*args, **kwargs)
