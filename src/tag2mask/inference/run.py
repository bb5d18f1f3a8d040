"""Find the weights of a trained run, on disk or on the Hugging Face hub, and build its network."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from tag2mask.checkpoint import check_finite, check_state, read_license, read_weights, stage_folder
from tag2mask.config.recipe import Recipe
from tag2mask.errors import RunError, WeightsError
from tag2mask.inference.tuned import TUNE_FILE, apply_tuned
from tag2mask.io.hub_files import is_hub_id, split_revision, verify_download
from tag2mask.methods.base import Method
from tag2mask.methods.build import build_blank_method, named_license

Which = Literal["best", "last"]
Configure = Callable[[Recipe], Recipe]
"""Turns the recipe of a run into the one to use: another method, refiner or test-time settings."""


class TrainedRun(NamedTuple):
    """A trained network with its recipe."""

    method: Method
    recipe: Recipe
    origin: dict[str, str]
    """Where the weights come from (`run`, `weights`, `sha256`); stored with the masks."""


def open_run(
    run: str | Path, which: Which = "best", configure: Configure | None = None
) -> TrainedRun:
    """Open a run folder or a hub model.

    Args:
        run: A folder that `tag2mask train` wrote, or a hub id such as `org/name`. Of a run with
            stages, the last stage that trained.
        which: Weights to use; `best` falls back to `last` if no best were saved.
        configure: Changes the run's recipe, tuned settings included, before the network is built.
            Another method must have the same parameters: `advcam` and `rib` read the weights of
            `cam`.

    Raises:
        RunError: If the folder contains no weights.
        WeightsError: If the weights cannot be read, downloaded or loaded, or are not finite.
    """
    path = find_weights(run, which)
    state, trained = read_weights(path)
    tuned = apply_tuned(trained, path.parents[1])
    recipe = tuned if configure is None else configure(tuned)
    reader = ""
    if recipe.method.name != trained.method.name:
        reader = f" (of method '{trained.method.name}') read by method '{recipe.method.name}'"
    # The weights file fills everything. A method needs the refiner that it trained with, also where
    # masks are to be refined with another one or with none.
    method = build_blank_method(recipe.model_copy(update={"refiner": trained.refiner}))
    check_state(method.state_dict(), state, f"{path}{reader}")
    check_finite(state, str(path))
    method.load_state_dict(state)
    method.backbone.weights_license = read_license(path) or named_license(trained)
    origin = {"run": str(run), "weights": path.stem, "sha256": weights_fingerprint(path)}
    return TrainedRun(method, recipe, origin)


def resolve_device(device: str | torch.device) -> torch.device:
    """Return a device; `auto` is the GPU if there is one, else the CPU."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(device)


def ready_method(method: Method, device: torch.device) -> Method:
    """Put a method into evaluation mode on a device, without a write where it is so already."""
    if any(part.training for part in method.modules()):
        method.eval()
    found = {one.device for one in (*method.parameters(), *method.buffers())}
    there = all(one.type == device.type and device.index in (None, one.index) for one in found)
    return method if there else method.to(device)


def find_weights(run: str | Path, which: Which = "best") -> Path:
    """Find the weights file of a run folder or a hub model; of stages, the last that trained.

    Raises:
        RunError: If there is none.
        WeightsError: If the hub cannot provide it.
    """
    return weights_path(stage_folder(_local_folder(run), "train"), which)


def weights_path(folder: Path, which: Which) -> Path:
    """Find the weights of a run folder; `last` if no best were saved.

    Raises:
        RunError: If there are none.
    """
    for name in (which, "last"):
        path = folder / "weights" / f"{name}.safetensors"
        if path.is_file():
            return path
    if (folder / "recipe.yaml").is_file():
        raise RunError(
            f"{folder}: the run has saved no weights yet (weights/{which}.safetensors); finish it: "
            f"tag2mask train --resume {folder}"
        )
    raise RunError(
        f"{folder}: is not a run, as it contains no weights/{which}.safetensors; give the folder "
        "that 'tag2mask train' wrote, before the data"
    )


def weights_fingerprint(path: Path) -> str:
    """SHA-256 of a weights file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _local_folder(run: str | Path) -> Path:
    """Find a run on this disk, or download it from the hub."""
    folder = Path(run)
    if folder.exists():
        return folder
    if isinstance(run, Path) or not is_hub_id(run):
        raise RunError(f"{run}: no such run folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    patterns = ["recipe.yaml", TUNE_FILE, "weights/*.safetensors"]
    try:
        repository, revision = split_revision(run)
        snapshot = Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise WeightsError(
            f"{run}: no such run folder, and the hub cannot provide it ({reason})"
        ) from error
    for pattern in patterns:
        for path in snapshot.glob(pattern):
            verify_download(path)
    return snapshot
