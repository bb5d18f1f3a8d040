"""Optimizers over a method's parameter groups, their learning rates, and their state by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from tag2mask.config.schema import OptimConfig, resolve_steps
from tag2mask.errors import RunError
from tag2mask.methods.base import Method

FUSED_DEVICES = ("cpu", "cuda")
"""Devices with a fused AdamW, 3 to 7 times as fast as a loop or `foreach` on a CPU core."""


def lr_multiplier(
    step: int, *, total: int, warmup: int, warmup_ratio: float, power: float
) -> float:
    """Return the share of the full learning rate at a step; the first step is 0.

    Source:
        Specification 2.9: m(t) = 1 - (1 - t/W)(1 - ratio) for t < W, else (1 - t/T)^power.
        The drop from 1 to (1 - W/T)^power at t = W is in AFA's code too.

    Example:
        >>> lr_multiplier(50, total=100, warmup=10, warmup_ratio=1e-6, power=1.0)
        0.5
    """
    if step < warmup:
        return 1 - (1 - step / warmup) * (1 - warmup_ratio)
    return float(max(1 - step / total, 0.0) ** power)


def build_optimizer(method: Method, config: OptimConfig) -> Optimizer:
    """Build the optimizer over `method.parameter_groups()` at the base and head rates.

    Call it after the method is on its device, because the optimizer's kernel depends on the device.

    Raises:
        RunError: If the method has no trainable parameter.
    """
    groups = _torch_groups(method, config)
    if not groups:
        raise RunError(f"method {type(method).__name__} has no parameter to train")
    if config.optimizer == "sgd":
        return SGD(groups, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    return AdamW(
        groups,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=devices <= set(FUSED_DEVICES),
    )


def _torch_groups(method: Method, config: OptimConfig) -> list[dict[str, Any]]:
    """Build torch's parameter groups; biases are a separate group where their settings differ.

    Source:
        Specification 4.2: rates x 1, 2, 10, 20 for loaded weights, loaded biases, new weights,
        new biases; the scripts of that family use no weight decay on biases.
    """
    rates = {"base": config.lr, "head": config.head_lr}
    separate = config.bias_lr_factor != 1 or not config.decay_biases
    biases = {p for name, p in method.named_parameters() if separate and name.endswith(".bias")}
    bias_decay = config.weight_decay if config.decay_biases else 0.0
    groups = []
    for group in method.parameter_groups():
        rate = rates[group.rate]
        weights = [p for p in group.parameters if p not in biases]
        group_biases = [p for p in group.parameters if p in biases]
        bias_rate = rate * config.bias_lr_factor
        groups.append(_torch_group(group.name, weights, rate, config.weight_decay))
        groups.append(_torch_group(f"{group.name}_bias", group_biases, bias_rate, bias_decay))
    return [group for group in groups if group["params"]]


def _torch_group(
    name: str, parameters: list[nn.Parameter], rate: float, weight_decay: float
) -> dict[str, Any]:
    """One group as torch takes it, with what `set_learning_rates` needs."""
    return {
        "params": parameters,
        "name": name,
        "full_lr": rate,
        "lr": rate,
        "weight_decay": weight_decay,
    }


def set_learning_rates(optimizer: Optimizer, config: OptimConfig, step: int) -> dict[str, float]:
    """Set the learning rate of every group for `step`; return the rates by group name."""
    share = lr_multiplier(
        step,
        total=config.decay_steps or config.steps,
        warmup=resolve_steps(config.warmup, config.steps),
        warmup_ratio=config.warmup_ratio,
        power=config.power,
    )
    for group in optimizer.param_groups:
        group["lr"] = group["full_lr"] * share
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def optimizer_tensors(optimizer: Optimizer, method: Method) -> dict[str, Tensor]:
    """Return the optimizer's tensors by `<key>.<parameter name>`; the recipe has its settings."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in method.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value
        for parameter, entry in optimizer.state.items()
        for key, value in entry.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimizer_tensors(
    optimizer: Optimizer, method: Method, tensors: Mapping[str, Tensor]
) -> None:
    """Load what `optimizer_tensors` returned, even if the order of parameters has changed."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    index = {names[parameter]: position for position, parameter in enumerate(ordered)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        state.setdefault(index[name], {})[key] = value
    # load_state_dict moves each tensor to the device its kernel needs; `step` may stay on the CPU.
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})
