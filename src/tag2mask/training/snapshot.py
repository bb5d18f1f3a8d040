"""Network and optimizer as one flat set of named tensors, and back."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from tag2mask.checkpoint import check_state
from tag2mask.methods.base import Method
from tag2mask.training.optimizer import load_optimizer_tensors, optimizer_tensors

MODEL = "model."
OPTIMIZER = "optimizer."


def snapshot(method: Method, optimizer: Optimizer) -> dict[str, Tensor]:
    """Return all tensors that training changes, by name; nothing is copied."""
    model = {f"{MODEL}{name}": value for name, value in method.state_dict().items()}
    moments = optimizer_tensors(optimizer, method)
    return model | {f"{OPTIMIZER}{name}": value for name, value in moments.items()}


def restore(
    method: Method, optimizer: Optimizer, tensors: Mapping[str, Tensor], where: str
) -> None:
    """Load what `snapshot` returned.

    Raises:
        WeightsError: If the tensors are those of another network.
    """
    model = _under(tensors, MODEL)
    check_state(method.state_dict(), model, where)
    method.load_state_dict(model)
    load_optimizer_tensors(optimizer, method, _under(tensors, OPTIMIZER))


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose name begins with `prefix`, without it."""
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
