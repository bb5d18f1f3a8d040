"""Network and optimizer as one flat mapping of named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer

from tag2mask.checkpoint import check_state, read_state
from tag2mask.errors import RunError
from tag2mask.io.json_files import FileSchema, find_problem
from tag2mask.methods.base import Method
from tag2mask.training.optimizer import load_optimizer_tensors, optimizer_tensors

MODEL = "model."
OPTIMIZER = "optimizer."


class _RankState(FileSchema):
    """State of one process: random number generators, and losses since the last log line."""

    rng: dict[str, Any]
    window: dict[str, list[float | int]]


class _Record(FileSchema):
    """What a state has beside tensors."""

    step: int = Field(ge=0)
    seconds: float = Field(ge=0)
    ranks: list[_RankState] = Field(min_length=1)


def read_snapshot(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and the record of a training state.

    Raises:
        RunError: If the file cannot be read, or its record was changed by hand.
    """
    tensors, record = read_state(path)
    if problem := find_problem(record, _Record):
        raise RunError(f"{path}: {problem}; start a new run folder")
    return tensors, record


def snapshot(method: Method, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return all tensors that training changes, by name, without copies."""
    model = {f"{MODEL}{name}": value for name, value in method.state_dict().items()}
    moments = optimizer_tensors(optimizer, method)
    return model | {f"{OPTIMIZER}{name}": value for name, value in moments.items()}


def restore(
    method: Method, optimizer: Optimizer, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Load what `snapshot` returned.

    Raises:
        WeightsError: If the tensors belong to another network.
    """
    model = _with_prefix(tensors, MODEL)
    check_state(method.state_dict(), model, where)
    method.load_state_dict(model)
    load_optimizer_tensors(optimizer, method, _with_prefix(tensors, OPTIMIZER))


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose name begins with `prefix`, and remove the prefix."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
