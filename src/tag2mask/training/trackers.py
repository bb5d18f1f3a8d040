"""Experiment trackers beside the log: Weights & Biases, trackio and MLflow, through accelerate.

Each tracker reads its own environment variables and login, such as `WANDB_MODE=offline`,
`TRACKIO_DIR` and `MLFLOW_TRACKING_URI`. The JSON lines of a run stay complete, so a tracker that
fails during training is left out instead of stopping the run. A resumed run continues the run that
a tracker already has; the run folder stores which one that is.
"""

from __future__ import annotations

import importlib.util
import json
import math
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tag2mask.errors import MissingExtraError, RunError
from tag2mask.io.files import write_text
from tag2mask.io.json_files import FileSchema, read_object

PROJECT = "tag2mask"
"""Project or experiment that all runs belong to."""
LOGIN = {
    "wandb": "run 'wandb login', or set WANDB_MODE=offline",
    "trackio": "set TRACKIO_DIR to a folder that can be written",
    "mlflow": "set MLFLOW_TRACKING_URI, for instance to sqlite:///mlflow.db",
}
"""What to try if a tracker does not start."""


class _TrackerRuns(FileSchema):
    """The file `state/trackers.json`: how each experiment tracker knows the run."""

    wandb: str | None = None
    trackio: str | None = None
    mlflow: str | None = None


class _Tracker(Protocol):
    """The part of accelerate's trackers that this module uses."""

    @property
    def tracker(self) -> Any: ...
    def start(self) -> None: ...
    def store_init_configuration(self, values: dict[str, Any]) -> None: ...
    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...
    def finish(self) -> None: ...


class Trackers:
    """Sends the scalars of one run to some trackers; only the first process has them."""

    def __init__(
        self,
        names: Sequence[str],
        run_name: str,
        settings: Mapping[str, Any],
        warn: Callable[[str], object],
        stored: Path,
    ) -> None:
        """Start a run in each tracker, or continue the one that it already has.

        Args:
            names: Trackers of the recipe.
            run_name: Name of the run there.
            settings: Of the run; nested mappings get dotted names.
            warn: Receives one line when a tracker fails during training, or lost its run.
            stored: JSON file with the run of each tracker; written here.

        Raises:
            RunError: If a tracker does not start, or the file cannot be read or written.
        """
        self._warn = warn
        self._trackers: dict[str, _Tracker] = {}
        if not names:
            return
        values = dict(_flatten(settings))
        runs = _read_runs(stored)
        try:
            for name in names:
                runs[name] = self._start(name, run_name, runs.get(name), values)
            write_text(stored, json.dumps(runs, indent=1) + "\n")
        except RunError:
            self.close()
            raise

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Send finite values of a step; a tracker that fails gets no more."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.log(finite, step=step))

    def close(self) -> None:
        """Finish the run in each tracker."""
        for name in list(self._trackers):
            self._try(name, lambda tracker: tracker.finish())
        self._trackers.clear()

    def _start(
        self, name: str, run_name: str, run_id: str | None, values: Mapping[str, Any]
    ) -> str:
        """Start a tracker and return the run in it: `run_id` if it still has that one.

        A run gets the settings once: MLflow lets no value change.

        Raises:
            RunError: If it does not start.
        """
        tracker = _build(name, run_name, run_id)
        try:
            tracker.start()
            self._trackers[name] = tracker
            if run_id is None:
                tracker.store_init_configuration(dict(values))
        except Exception as error:
            if run_id is not None:
                reason = f"{name} cannot continue its run {run_id} ({_one_line(error)})"
                self._warn(f"warning: {reason}; a new one starts there")
                return self._start(name, run_name, None, values)
            raise RunError(
                f"run.trackers: {name} does not start ({_one_line(error)}); {LOGIN[name]}, or "
                "leave it out"
            ) from error
        return _run_id(name, tracker)

    def _try(self, name: str, call: Callable[[_Tracker], object]) -> None:
        """Call a tracker; the network, the disk and the service can fail in any way."""
        try:
            call(self._trackers[name])
        except Exception as error:
            del self._trackers[name]
            self._warn(f"warning: {name} is left out from now on ({_one_line(error)})")


def require_trackers(names: Sequence[str]) -> None:
    """Check that the library of each tracker is installed, before anything is written.

    Raises:
        MissingExtraError: If one is missing; each has an extra of its own name.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise MissingExtraError(name)


def _build(name: str, run_name: str, run_id: str | None) -> _Tracker:
    """Build one of accelerate's trackers, for a new run or for one that it has (`run_id`)."""
    from accelerate import tracking

    built: _Tracker
    if name == "wandb":
        resume = None if run_id is None else "allow"
        built = tracking.WandBTracker(PROJECT, name=run_name, id=run_id, resume=resume)
    elif name == "trackio":  # knows a run by its name, so the name must be the only one
        known = run_id or f"{run_name}-{secrets.token_hex(3)}"
        built = tracking.TrackioTracker(PROJECT, name=known, resume="allow")
    else:
        built = tracking.MLflowTracker(PROJECT, run_name=run_name, run_id=run_id)
    return built


def _run_id(name: str, tracker: _Tracker) -> str:
    """Return how a started tracker knows its run."""
    run = tracker.tracker
    if name == "wandb":
        return str(run.id)
    return str(run.name if name == "trackio" else run.info.run_id)


def _read_runs(stored: Path) -> dict[str, str]:
    """Read the run of each tracker; empty before the first start.

    Raises:
        RunError: If the file is damaged.
    """
    if not stored.is_file():
        return {}
    advice = "remove it to start new runs in the trackers"
    return read_object(stored, _TrackerRuns, RunError, advice=advice)


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield plain values by dotted name; lists become text."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{prefix}{key}", ", ".join(map(str, value))
        else:
            yield f"{prefix}{key}", value


def _one_line(error: BaseException) -> str:
    """Return the first line of a message, or the type of an error without one."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
