"""Experiment trackers beside the log: Weights & Biases, trackio and MLflow, through accelerate.

Each tracker reads its own environment variables and login, such as `WANDB_MODE=offline`,
`TRACKIO_DIR` and `MLFLOW_TRACKING_URI`. The JSON lines of a run stay complete, so a tracker that
fails during training is left out instead of stopping the run.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from tag2mask.errors import MissingExtraError, RunError

PROJECT = "tag2mask"
"""Project or experiment that all runs belong to."""
LOGIN = {
    "wandb": "run 'wandb login', or set WANDB_MODE=offline",
    "trackio": "set TRACKIO_DIR to a folder that can be written",
    "mlflow": "set MLFLOW_TRACKING_URI, for instance to sqlite:///mlflow.db",
}
"""What to try if a tracker does not start."""


class _Tracker(Protocol):
    """The part of accelerate's trackers that this module uses."""

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
    ) -> None:
        """Start a run in each tracker.

        Args:
            names: Trackers of the recipe.
            run_name: Name of the run there.
            settings: Of the run; nested mappings get dotted names.
            warn: Receives one line when a tracker fails during training.

        Raises:
            RunError: If a tracker does not start.
        """
        self._warn = warn
        self._trackers: dict[str, _Tracker] = {}
        values = dict(_flatten(settings))
        for name in names:
            try:
                tracker = _build(name, run_name)
                tracker.start()
                tracker.store_init_configuration(values)
            except Exception as error:
                self.close()
                raise RunError(
                    f"run.trackers: {name} does not start ({_one_line(error)}); {LOGIN[name]}, or "
                    "leave it out"
                ) from error
            self._trackers[name] = tracker

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


def _build(name: str, run_name: str) -> _Tracker:
    """Build one of accelerate's trackers."""
    from accelerate import tracking

    built: _Tracker
    if name == "wandb":
        built = tracking.WandBTracker(PROJECT, name=run_name)
    elif name == "trackio":
        built = tracking.TrackioTracker(PROJECT, name=run_name)
    else:
        built = tracking.MLflowTracker(PROJECT, run_name=run_name)
    return built


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
