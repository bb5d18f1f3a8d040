"""Where a run's numbers go: JSON lines, TensorBoard where it is installed, and the terminal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
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

Totals = dict[str, tuple[float, int]]
"""Name -> (sum, number of terms)."""


class LossWindow:
    """Sums of the losses since the last log line, kept on the device until somebody reads them."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add detached scalars; the host does not wait for them."""
        for name, loss in losses.items():
            self._sums[name] = self._sums[name] + loss if name in self._sums else loss
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> Totals:
        """Fetch all sums in one transfer."""
        values = host_values(self._sums)
        return {name: (value, self._counts[name]) for name, value in values.items()}

    def restore(self, totals: Mapping[str, tuple[float, int]], device: torch.device) -> None:
        """Continue from what `read` gave, exactly: a float32 survives the trip through a float."""
        self._sums = {name: torch.tensor(total[0], device=device) for name, total in totals.items()}
        self._counts = {name: total[1] for name, total in totals.items()}

    def clear(self) -> None:
        """Begin a new window."""
        self._sums.clear()
        self._counts.clear()


def host_values(scalars: Mapping[str, Tensor]) -> dict[str, float]:
    """Fetch named scalars from their device in one transfer."""
    if not scalars:
        return {}
    with_background = torch.stack(
        [value.detach().float().reshape(()) for value in scalars.values()]
    )
    return dict(zip(scalars, with_background.tolist(), strict=True))


def merged_means(parts: list[Totals]) -> dict[str, float]:
    """Mean of each name over the windows of all processes."""
    names = {name: None for part in parts for name in part}  # a dict keeps the order
    means = {}
    for name in names:
        found = [part[name] for part in parts if name in part]
        means[name] = sum(total for total, _ in found) / sum(count for _, count in found)
    return means


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, which JSON can carry, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value


def cut_log(path: Path, step: int) -> None:
    """Drop the lines of steps after `step`, and a last line that a killed process left torn."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("step", 0) <= step:
            kept.append(line)
    write_text(path, "".join(f"{line}\n" for line in kept))


class _Scalars(Protocol):
    """The part of TensorBoard's writer that is used."""

    def add_scalar(self, tag: str, value: float, step: int) -> None: ...
    def close(self) -> None: ...


class MetricLogger:
    """Writes a run's log and shows how far it is; silent in all processes but the first."""

    def __init__(
        self,
        log: Path,
        *,
        tensorboard: Path,
        steps: int,
        start: int,
        is_main: bool,
        console: Console | None = None,
    ) -> None:
        """Open the log for appending.

        Args:
            log: JSON lines, one per record.
            tensorboard: Folder of TensorBoard's own files.
            steps: Steps of the whole run.
            start: Steps that are done already.
            is_main: Whether this process writes and speaks.
            console: Terminal or file to speak to; standard error if None.
        """
        self._log = log
        self._is_main = is_main
        self._steps = steps
        self._start = start
        self._began = time.perf_counter()
        self._console = console or Console(stderr=True)
        self._scalars = _open_tensorboard(tensorboard, start) if is_main else None
        self._progress: Progress | None = None
        self._task = TaskID(0)
        if is_main and self._console.is_terminal:
            self._progress = _bar(self._console)
            self._task = self._progress.add_task("train", total=steps, completed=start, told="")
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

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line to the log.

        Raises:
            RunError: If the disk is full or writing is not allowed.
        """
        if not self._is_main:
            return
        line = json.dumps(finite(record), ensure_ascii=False)
        try:
            with self._log.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        except OSError as error:
            raise RunError(f"{self._log}: cannot be written ({error.strerror})") from error

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Draw values in TensorBoard, where it is installed."""
        if self._scalars is not None:
            for tag, value in values.items():
                self._scalars.add_scalar(tag, value, step)

    def say(self, text: str) -> None:
        """Print a line above the bar, or plainly where there is no terminal."""
        if self._is_main:
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def tell(self, step: int, told: str) -> None:
        """Show what the last log line says: on the bar, or as a line with the time left."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step, told=told)
        else:
            self.say(f"step {step}/{self._steps}  {told}  {self._time_left(step)} left")

    def advance(self, step: int) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(self._task, completed=step)

    def _time_left(self, step: int) -> str:
        """Hours, minutes and seconds at the mean pace so far, pauses for evaluation included."""
        pace = (time.perf_counter() - self._began) / max(step - self._start, 1)
        minutes, seconds = divmod(round(pace * (self._steps - step)), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02}"


def _bar(console: Console) -> Progress:
    """Progress bar with count, time left and the last log line."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[told]}"),
        console=console,
    )


def _open_tensorboard(folder: Path, start: int) -> _Scalars | None:
    """Open TensorBoard's writer, or None where it is not installed: the JSON lines have it all."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    writer: _Scalars = SummaryWriter(str(folder), purge_step=start + 1)
    return writer
