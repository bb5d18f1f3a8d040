"""What the tests on a GPU share: copies on both devices, equal random numbers, exact arithmetic."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from tests.conformance.stand_ins import randomized_batchnorm, small_method
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tag2mask.methods.base import Method

DEVICE = torch.device("cuda")


class Pair(NamedTuple):
    """The same method on the CPU and on the GPU."""

    cpu: Method
    gpu: Method


class HostDraws(TorchFunctionMode):
    """Draw every random number on the CPU, so that both devices get the same."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is torch.rand:
            device = kwargs.pop("device", None)
            return func(*args, **kwargs).to(device)
        if func is torch.rand_like:
            return torch.rand(args[0].shape, dtype=args[0].dtype).to(args[0].device)
        return func(*args, **kwargs)


def pair(name: str, **changes: Any) -> Pair:
    """Build a small method twice, without dropout and with pseudo-labels in float32."""
    probe = small_method(name)
    if "label_precision" in type(probe.config).model_fields:
        changes = {"label_precision": "fp32"} | changes
    method = small_method(name, **changes)
    with torch.no_grad():
        randomized_batchnorm(method.backbone)
    for module in method.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    return Pair(method, copy.deepcopy(method).to(DEVICE))


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Switch off the convolutions in TF32, which keeps 10 bits of a product."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def on_both(run: Any, *tensors: Tensor) -> tuple[Tensor, Tensor]:
    """Run a function on the CPU and on the GPU; both results on the CPU."""
    return run(*tensors), run(*(tensor.to(DEVICE) for tensor in tensors)).cpu()
