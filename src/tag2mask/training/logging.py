"""Metrics of a run as JSON lines, in TensorBoard, in other trackers, and on the terminal."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from tag2mask.errors import RunError
from tag2mask.io.files import write_text
from tag2mask.io.json_files import parse_line
from tag2mask.io.run_files import LogRecord
from tag2mask.training.run_folder import RunFolder
from tag2mask.training.trackers import Trackers
from tag2mask.types import StepProgress

Totals = dict[str, tuple[float, int]]
"""Name -> (sum, number of terms)."""
OnStep = Callable[[StepProgress], object]
"""Called after each optimizer step."""


class LossWindow:
    """Sums of the losses since the last log line, on the device until `read` fetches them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add detached scalars without waiting for the device."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> Totals:
        """Fetch all sums in one transfer."""
        values = host_values(self._sums)
        return {name: (value, self._counts[name]) for name, value in values.items()}

    def restore(self, totals: Mapping[str, tuple[float, int]], device: torch.device) -> None:
        """Restore what `read` returned, exactly: a float32 survives the conversion to a float."""
        self._sums = {name: torch.tensor(total[0], device=device) for name, total in totals.items()}
        self._counts = {name: total[1] for name, total in totals.items()}

    def clear(self) -> None:
        """Start a new window."""
        self._sums.clear()
        self._counts.clear()


def host_values(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Fetch named scalars from their device in one transfer."""
    if not scalars:
        return {}
    stacked = torch.stack([value.detach().float().reshape(()) for value in scalars.values()])
    return dict(zip(scalars, stacked.tolist(), strict=True))


def merged_means(parts: list[Totals]) -> dict[str, float]:
    """Return the mean of each name over the windows of all processes."""
    names = {name: None for part in parts for name in part}  # a dict preserves the order
    means = {}
    for name in names:
        totals = [part[name] for part in parts if name in part]
        means[name] = sum(total for total, _ in totals) / sum(count for _, count in totals)
    return means


def replace_non_finite(value: Any) -> Any:
    """Replace NaN and infinity by None, which JSON can represent, at any depth.

    Example:
        >>> replace_non_finite({"loss": [1.0, float("nan")]})
        {'loss': [1.0, None]}
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: replace_non_finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_non_finite(inner) for inner in value]
    return value


def truncate_log(path: Path, step: int) -> None:
    """Remove the lines of steps after `step`, and an incomplete last line of a killed process.

    Raises:
        RunError: If the path is there but no regular file, such as a pipe that nobody reads.
    """
    if not os.path.lexists(path):
        return
    if not path.is_file():
        raise RunError(f"{path}: is not a regular file; remove it and resume again")
    lines = []
    for line in path.read_bytes().split(b"\n"):
        record = parse_line(line, LogRecord)
        if record is not None and record.get("step", 0) <= step:
            lines.append(line.decode("utf-8"))
    write_text(path, "".join(f"{line}\n" for line in lines))


class _Scalars(Protocol):
    """The part of TensorBoard's writer that this module uses."""

    def add_scalar(self, tag: str, value: float, step: int) -> None: ...
    def close(self) -> None: ...


class MetricLogger:
    """Writes the log of a run and shows its progress; only the first process does either."""

    def __init__(
        self,
        log: Path,
        *,
        tensorboard: Path,
        steps: int,
        start: int,
        is_main: bool,
        console: Console | None = None,
        on_step: OnStep | None = None,
        trackers: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Open the log for appending.

        Args:
            log: JSON lines, one per record.
            tensorboard: Folder of TensorBoard files.
            steps: Steps of the complete run.
            start: Steps already done.
            is_main: Whether this process writes and prints.
            console: Terminal or file to print to; None: standard error.
            on_step: Called by `advance` in the first process.
            trackers: Names of further trackers; see `training.trackers`.
            settings: Of the run, for the trackers.

        Raises:
            RunError: If a tracker does not start, or its run cannot be stored.
        """
        self._log = log
        self._is_main = is_main
        self._on_step = on_step if is_main else None
        self._steps = steps
        self._start = start
        self._start_time = time.perf_counter()
        self._console = console or Console(stderr=True)
        names, run = trackers if is_main else (), RunFolder(log.resolve().parent)
        values = settings or {}
        self._trackers = Trackers(names, run.root.name, values, self.print_line, run.trackers)
        self._scalars = _open_tensorboard(tensorboard, start) if is_main else None
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if is_main and self._console.is_terminal:
            self._progress = _progress_bar(self._console)
            self._task = self._progress.add_task("train", total=steps, completed=start, summary="")
            self._progress.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        if self._scalars is not None:
            self._scalars.close()
        self._trackers.close()

    def write_record(self, record: Mapping[str, Any]) -> None:
        """Append one JSON line to the log.

        Raises:
            RunError: If the file cannot be written.
        """
        if not self._is_main:
            return
        line = json.dumps(replace_non_finite(record), ensure_ascii=False)
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"{self._log}: cannot be written ({error.strerror})") from error

    def write_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write values to TensorBoard if it is installed, and to the other trackers."""
        self._trackers.log(values, step)
        if self._scalars is not None:
            for tag, value in values.items():
                self._scalars.add_scalar(tag, value, step)

    def print_line(self, text: str) -> None:
        """Print a line above the progress bar, or a plain line without a terminal."""
        if self._is_main:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def show_progress(self, step: int, summary: str) -> None:
        """Show the summary of a log step: on the progress bar, or as a line with the time left."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step, summary=summary)
        else:
            left = self._time_left(step)
            self.print_line(f"step {step}/{self._steps}  {summary}  {left} left")

    def start_clock(self) -> None:
        """Start the clock by which the time left is computed."""
        self._start_time = time.perf_counter()

    def advance(self, step: int, losses: Mapping[str, float]) -> None:
        """Advance the progress bar and call `on_step`.

        Args:
            step: Steps done.
            losses: Mean losses since the last log line; empty between log lines.
        """
        if self._progress is not None:
            self._progress.update(self._task, completed=step)
        if self._on_step is not None:
            self._on_step(StepProgress(step, self._steps, losses))

    def _time_left(self, step: int) -> str:
        """Return hours:minutes:seconds at the mean pace so far, validation included."""
        pace = (time.perf_counter() - self._start_time) / max(step - self._start, 1)
        minutes, seconds = divmod(round(pace * (self._steps - step)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def _progress_bar(console: Console) -> Progress:
    """Build a progress bar with the count, the time left and the last summary."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[summary]}"),
        console=console,
    )


def _open_tensorboard(folder: Path, start: int) -> _Scalars | None:
    """Open TensorBoard's writer; None if it is not installed, as the JSON lines are complete."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: _Scalars = SummaryWriter(str(folder), purge_step=start + 1)
    return writer
