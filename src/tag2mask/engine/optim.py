"""AdamW over a method's parameter groups, its schedule, and its state by parameter name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

from tag2mask.errors import RunError
from tag2mask.methods.base import Method
from tag2mask.recipe import OptimConfig, span_steps

FUSED_DEVICES = ("cpu", "cuda")
"""Devices with a one-pass AdamW: 3 to 7 times as fast as a loop or `foreach` on a CPU core."""


def multiplier(step: int, *, total: int, warmup: int, warmup_ratio: float, power: float) -> float:
    """Share of the full learning rate at a step (0 is the first).

    Source:
        methods specification 2.9: m(t) = 1 - (1 - t/W)(1 - ratio) for t < W, else (1 - t/T)^power.
        The drop from 1 to (1 - W/T)^power at t = W is AFA's own.
    """
    if step < warmup:
        return 1 - (1 - step / warmup) * (1 - warmup_ratio)
    return float((1 - step / total) ** power)


def build_optimiser(method: Method, config: OptimConfig) -> AdamW:
    """Build AdamW over `method.parameter_groups()` at the base and head rates.

    Call after the method is on its device: the optimiser's kernel depends on it.

    Raises:
        RunError: If nothing is to be trained.
    """
    rates = {"base": config.lr, "head": config.head_lr}
    groups: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "name": group.name,
            "full_lr": rates[group.rate],
            "lr": rates[group.rate],
        }
        for group in method.parameter_groups()
    ]
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not parameters:
        raise RunError(f"method {type(method).__name__} has no parameter to train")
    return AdamW(
        groups,
        betas=(config.beta1, config.beta2),
        weight_decay=config.weight_decay,
        fused=all(parameter.device.type in FUSED_DEVICES for parameter in parameters),
    )


def set_rates(optimiser: AdamW, config: OptimConfig, step: int) -> dict[str, float]:
    """Give every group its learning rate for `step`; returns them by group name."""
    share = multiplier(
        step,
        total=config.steps,
        warmup=span_steps(config.warmup, config.steps),
        warmup_ratio=config.warmup_ratio,
        power=config.power,
    )
    for group in optimiser.param_groups:
        group["lr"] = group["full_lr"] * share
    return {group["name"]: group["lr"] for group in optimiser.param_groups}


def optimiser_tensors(optimiser: AdamW, method: Method) -> dict[str, Tensor]:
    """Return the optimiser's tensors as `<key>.<parameter name>`; the recipe has its settings."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in method.named_parameters()}
    return {
        f"{key}.{names[parameter]}": value
        for parameter, entry in optimiser.state.items()
        for key, value in entry.items()
        if isinstance(value, torch.Tensor)
    }


def load_optimiser_tensors(optimiser: AdamW, method: Method, tensors: Mapping[str, Tensor]) -> None:
    """Load what `optimiser_tensors` returned, whatever the order of parameters then and now."""
    names = {parameter: name for name, parameter in method.named_parameters()}
    ordered = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    index = {names[parameter]: place for place, parameter in enumerate(ordered)}
    state: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        key, _, name = full_name.partition(".")
        state.setdefault(index[name], {})[key] = value
    # load_state_dict puts each tensor where its kernel wants it (`step` may lie elsewhere).
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})
