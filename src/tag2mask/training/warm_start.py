"""Start a training from the weights of another run; shared classes keep what they learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tag2mask.checkpoint import read_weights
from tag2mask.config.recipe import Recipe
from tag2mask.errors import WeightsError
from tag2mask.inference.run import find_weights
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_method
from tag2mask.methods.warmup import ClassifierWarmup

_OTHER_CLASS = "\0"
"""Name of a class that no data set has."""


def start_from(method: Method, recipe: Recipe, run: str) -> str:
    """Copy the weights of a run into a new network, in place.

    Tensors whose shape depends on the number of classes are copied class by class, by name. What
    has no counterpart in the run stays as it is: new classes, and the heads of another method.

    Args:
        method: Built from `recipe`.
        recipe: Resolved, classes included.
        run: Run folder or hub id; its best weights are used.

    Returns:
        One line that says what was kept.

    Raises:
        RunError: If the run has no weights.
        WeightsError: If they cannot be read, or the run has another backbone.
    """
    path = find_weights(run, "best")
    saved, trained = read_weights(path)
    old, new = trained.data.classes, recipe.data.classes
    axes = class_axes(method, recipe)
    fresh = 0
    for name, tensor in method.state_dict().items():
        if name in _warmup_names(method):
            continue
        source = saved.get(name)
        if source is not None and name in axes:
            copied = _copy_classes(tensor, source, axes[name], old, new)
        else:
            copied = source is not None and source.shape == tensor.shape
            if copied and source is not None:
                tensor.copy_(source)
        if not copied and name.startswith("backbone."):
            raise WeightsError(
                f"{path}: its backbone differs from this recipe's ('{name}' does not fit); train "
                f"with backbone.name={trained.backbone.name} and the settings in its recipe.yaml"
            )
        fresh += not copied
    return _describe(run, old, new, fresh)


def class_axes(method: Method, recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Map the tensors whose shape depends on the number of classes to the axes that do.

    Found by comparing with a network of one more class, so a method need not say it.
    """
    classes = (*recipe.data.classes, _OTHER_CLASS)
    wider = build_method(recipe.blank().with_classes(classes)).state_dict()
    own = method.state_dict()
    shapes = {name: (tensor.shape, wider[name].shape) for name, tensor in own.items()}
    return {
        name: tuple(axis for axis, size in enumerate(shape) if size != other[axis])
        for name, (shape, other) in shapes.items()
        if shape != other
    }


def _copy_classes(
    target: Tensor, source: Tensor, axes: tuple[int, ...], old: Sequence[str], new: Sequence[str]
) -> bool:
    """Copy the slices of shared classes along the one axis of classes; return whether it fits.

    An axis one longer than the list of classes begins with background, which is copied, too.
    """
    if len(axes) != 1 or source.dim() != target.dim():
        return False
    axis = axes[0]
    offset = target.shape[axis] - len(new)
    expected = list(target.shape)
    expected[axis] = len(old) + offset
    if offset not in (0, 1) or list(source.shape) != expected:
        return False
    shared = [name for name in new if name in old]
    into = [*range(offset), *(offset + new.index(name) for name in shared)]
    out_of = [*range(offset), *(offset + old.index(name) for name in shared)]
    kept = source.index_select(axis, torch.tensor(out_of)).to(target.dtype)
    target.index_copy_(axis, torch.tensor(into), kept)
    return True


def _warmup_names(method: Method) -> set[str]:
    """Return the names of the tensors that count a warm-up, which starts anew."""
    return {
        f"{part}.{name}"
        for part, module in method.named_children()
        if isinstance(module, ClassifierWarmup)
        for name in module.state_dict()
    }


def _describe(run: str, old: Sequence[str], new: Sequence[str], fresh: int) -> str:
    """Say which classes and tensors keep the weights of a run."""
    parts = {
        "classes kept": [name for name in new if name in old],
        "new": [name for name in new if name not in old],
        "no longer learned": [name for name in old if name not in new],
    }
    named = "; ".join(f"{title}: {', '.join(names)}" for title, names in parts.items() if names)
    heads = f"; {fresh} tensors have no counterpart there and start fresh" if fresh else ""
    return f"starts from {run} ({named}{heads})"
