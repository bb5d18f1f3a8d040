"""Weights files that carry their recipe, and training state; safetensors and JSON, never pickle.

Every file is written in a temporary folder beside its target, flushed to disk and renamed. So a
full disk, a missing permission or a killed process leaves the previous file intact.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tag2mask.config.recipe import Recipe, load_recipe, parse_recipe
from tag2mask.errors import RunError, WeightsError
from tag2mask.io.files import write_atomically
from tag2mask.io.json_files import parse_json
from tag2mask.io.yaml_files import parse_yaml
from tag2mask.version import __version__

LICENSE_KEY = "weights_license"
MAX_REASON = 200
"""Characters of a library's message that a line of ours repeats."""
DIVERGED = "the training has diverged: train again with a lower optim.lr or optim.max_grad_norm=1"
MAX_NAMED_TENSORS = 3
"""Number of tensors that a message about mismatched weights names."""


def versions() -> dict[str, str]:
    """Return the versions of this package and of torch."""
    return {"tag2mask": __version__, "torch": torch.__version__}


def stage_folder(run: Path, kind: Literal["train", "label"]) -> Path:
    """Return the folder of the last stage of a kind; of a run without stages, `run` itself.

    Args:
        run: A run folder.
        kind: `train` for the stage with the trained network, `label` for that with the masks.

    Raises:
        RecipeError: If the run's recipe cannot be read.
    """
    path = run / "recipe.yaml"
    if (run / "weights").is_dir() or not path.is_file():
        return run
    stages = load_recipe(str(path)).stages
    names = [name for name, stage in stages.items() if stage.run == kind]
    return run / names[-1] if names else run


def save_weights(
    path: Path, state: Mapping[str, Tensor], recipe: Recipe, weights_license: str = ""
) -> None:
    """Write the parameters and buffers of a network, with recipe and versions as metadata.

    Args:
        path: Target, ends in `.safetensors`; its folder is created if it is missing.
        state: As `Module.state_dict()` returns it, on any device.
        recipe: What `build_method` needs to build the network again.
        weights_license: License of the backbone's pretrained weights, part of the metadata.

    Raises:
        RunError: If the file cannot be written; a previous file stays intact.
    """
    metadata = {"format": "pt", "recipe": recipe.to_yaml(), **versions()}
    if weights_license:
        metadata[LICENSE_KEY] = weights_license
    _save_tensors(path, state, metadata)


def read_weights(path: Path) -> tuple[dict[str, Tensor], Recipe]:
    """Read what `save_weights` wrote; the tensors are on the CPU.

    Raises:
        WeightsError: If the file is missing, is not a safetensors file or contains no recipe.
    """
    try:
        tensors, metadata = _read_tensors(path)
    except Exception as error:  # a damaged file can raise nearly every error
        raise WeightsError(f"{path}: weights cannot be read ({_reason(error)})") from error
    if "recipe" not in metadata:
        raise WeightsError(
            f"{path}: contains no recipe, so it is not a weights file of tag2mask; "
            "set backbone.weights to use a pretrained network"
        )
    return tensors, parse_recipe(parse_yaml(metadata["recipe"], str(path), WeightsError), str(path))


def read_license(path: Path) -> str | None:
    """Read the license of the backbone's pretrained weights; None if the file does not have it."""
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get(LICENSE_KEY)


def check_state(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], where: str) -> None:
    """Reject tensors that do not fit a network.

    Args:
        expected: The network's own `state_dict()`.
        found: The tensors to load into it.
        where: File or hub id, for the message.

    Raises:
        WeightsError: One line that names up to three tensors that differ, with both shapes.
    """
    own = {name: str(tuple(tensor.shape)) for name, tensor in expected.items()}
    other = {name: str(tuple(tensor.shape)) for name, tensor in found.items()}
    problems = [
        f"{name} is {own.get(name, 'absent')} in the network, "
        f"{other.get(name, 'absent')} in the file"
        for name in sorted(own.keys() | other.keys())
        if own.get(name) != other.get(name)
    ]
    if problems:
        named = "; ".join(problems[:MAX_NAMED_TENSORS])
        more = len(problems) - MAX_NAMED_TENSORS
        rest = f"; and {more} more" if more > 0 else ""
        raise WeightsError(f"{where}: weights of another architecture: {named}{rest}")


def check_finite(tensors: Mapping[str, Tensor], where: str, advice: str = DIVERGED) -> None:
    """Reject weights with NaN or infinite values: every mask made with them would be wrong.

    Args:
        tensors: Of a network, by name.
        where: File or hub id, for the message.
        advice: What to do about it, for the message.

    Raises:
        WeightsError: One line that names the first such tensor.
    """
    broken = [
        name
        for name, tensor in tensors.items()
        if tensor.is_floating_point() and not bool(tensor.isfinite().all())
    ]
    if broken:
        raise WeightsError(
            f"{where}: {len(broken)} of {len(tensors)} tensors contain NaN or infinite values, the "
            f"first is {broken[0]}; {advice}"
        )


def save_state(path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write training state: tensors by name, and everything else needed to resume as JSON.

    Raises:
        RunError: If the file cannot be written; a previous file stays intact.
    """
    _save_tensors(path, tensors, {"format": "pt", "record": json.dumps(record)})


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote: tensors on the CPU, and the JSON record.

    Raises:
        RunError: If the file is unreadable. A killed run does not cause this, because a file gets
            its name only when it is complete.
    """
    try:
        tensors, metadata = _read_tensors(path)
        record: Any = parse_json(metadata["record"])
    except Exception as error:  # a damaged file can raise nearly every error
        raise RunError(
            f"{path}: training state cannot be read ({_reason(error)}); start a new run folder"
        ) from error
    return tensors, record


def _save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors to one safetensors file; tied tensors are written once per name."""
    storages: set[int] = set()
    flat: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        value = tensor.detach().cpu().contiguous()
        storage = value.untyped_storage().data_ptr()
        # safetensors rejects two names that share memory.
        flat[name] = value.clone() if storage in storages else value
        storages.add(storage)

    def write(temporary: Path) -> None:
        try:
            save_file(flat, temporary, dict(metadata))
        except SafetensorError as error:
            raise OSError(_reason(error)) from error
        _sort_metadata(temporary)

    write_atomically(path, write)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata of a safetensors file by name.

    The library shuffles them in every process, but equal runs must give equal files: the
    fingerprint of the weights is part of what is made with them.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header: Any = parse_json(file.read(size).decode())
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(text) > size:
            raise RuntimeError(f"header of {len(text)} bytes in {size}")
        file.seek(8)
        file.write(text.ljust(size))


def _read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors and the metadata of a safetensors file."""
    with safe_open(path, framework="pt") as file:
        # Clone, because the tensors must not be views of a mapped file that the next save replaces.
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 not a dict
        return tensors, file.metadata() or {}


def _reason(error: Exception) -> str:
    """Return a short reason without the library's preamble."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).rpartition("I/O error: ")[2].partition(" (os error")[0]
    return (text.strip().splitlines() or [type(error).__name__])[0][:MAX_REASON]
