"""Copies of a network that share its tensors, so that no call changes what threads share."""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any, TypeVar

from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def scratch_copy(network: Network, trainable: Collection[str] = ()) -> Network:
    """Copy a network for computations that must leave the network itself alone.

    The copy takes the memory of its modules and of the trainable parameters only. Call it outside
    of inference mode, whose tensors have no gradients.

    Args:
        network: Stays as it is.
        trainable: Names of the parameters that the copy may change: they are cloned and require
            gradients. All other tensors are shared, and no parameter among them requires gradients.
    """
    shared: dict[int, Any] = {id(buffer): buffer for buffer in network.buffers()}
    for name, parameter in network.named_parameters():
        is_trainable = name in trainable
        value = parameter.detach().clone() if is_trainable else parameter.detach()
        shared[id(parameter)] = nn.Parameter(value, requires_grad=is_trainable)
    return copy.deepcopy(network, shared)


def shallow_copy(network: Network, **replaced: object) -> Network:
    """Copy the outermost module of a network with other attributes or submodules; all is shared.

    Args:
        network: Stays as it is.
        replaced: Attribute or submodule -> its value in the copy.
    """
    other = copy.copy(network)
    other._modules = dict(network._modules)
    for name, value in replaced.items():
        setattr(other, name, value)
    return other
