"""Processes, device and precision of a training run, by `accelerate`.

Without a launcher there is one process; `torchrun` starts several (gloo on CPUs, nccl on GPUs).
Nothing in a step makes the host wait for the device: losses stay there until a log line needs them.
"""

from __future__ import annotations

import atexit
import gc
import hashlib
import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from tag2mask.errors import LostProcessError, MissingExtraError, RunError
from tag2mask.methods.base import Method
from tag2mask.types import Batch

T = TypeVar("T")

COLLECTIVE_TIMEOUT = timedelta(hours=2)
"""How long the other processes wait for the first one, which alone validates and writes."""


class Runtime:
    """Owns the parallel wrapper and the optimizer, so that `shutdown` can release both.

    About half of all runs abort at exit if a wrapped network or its optimizer is still alive when
    the process group is destroyed. So no other object may keep a reference to either.
    """

    def __init__(self, precision: Literal["fp32", "bf16"]) -> None:
        """Join the launcher's processes, or run as the only one.

        Args:
            precision: `bf16` runs the forward pass under autocast, on CPUs too.

        Raises:
            MissingExtraError: If `accelerate` is not installed.
            RunError: If the launcher's processes do not connect.
        """
        try:
            from accelerate import Accelerator
            from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
        except ImportError as error:
            raise MissingExtraError("train") from error
        is_first = not dist.is_initialized()
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if is_first and launched > 1:
            _join_after_restart()
        self._accelerator: Any = Accelerator(
            # Without this, accelerate runs each of torchrun's CPU processes on its own.
            cpu=launched > 1 and not torch.cuda.is_available(),
            mixed_precision="bf16" if precision == "bf16" else "no",
            kwargs_handlers=[
                # During warm-up some heads do not contribute to the loss.
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=COLLECTIVE_TIMEOUT),
            ],
        )
        self.device: torch.device = self._accelerator.device
        self.rank: int = self._accelerator.process_index
        self.world: int = self._accelerator.num_processes
        if self.world != launched:
            raise RunError(
                f"the launcher started {launched} processes, but only {self.world} connected"
            )
        if is_first and self.world > 1:
            atexit.register(_leave_group)
        # Host-side messages use gloo: nccl would wait for the device.
        self._host_group = dist.new_group(backend="gloo") if self.world > 1 else None
        self._model: nn.Module | None = None
        self._optimizer: Optimizer | None = None

    @property
    def is_main(self) -> bool:
        """Whether this process validates, writes and prints."""
        return self.rank == 0

    @property
    def optimizer(self) -> Optimizer:
        """The optimizer of the prepared method; keep no reference to it."""
        if self._optimizer is None:
            raise RuntimeError("no method prepared yet")
        return self._optimizer

    def prepare(self, method: Method, build: Callable[[], Optimizer]) -> None:
        """Move a method to the device, wrap it, and build its optimizer there."""
        self._model = self._accelerator.prepare_model(method)
        self._optimizer = build()

    def backward(self, batch: Batch, step: int, *, share: float, last: bool) -> dict[str, Tensor]:
        """Add the gradients of one batch.

        Args:
            batch: On the host.
            step: Optimizer step, for the method's schedules.
            share: Factor of the loss: 1 / batches per optimizer step.
            last: Whether an optimizer step follows; only then do processes exchange gradients.

        Returns:
            The losses, detached, on the device.
        """
        if self._model is None:
            raise RuntimeError("no method prepared yet")
        with nullcontext() if last else self._accelerator.no_sync(self._model):
            losses: Mapping[str, Tensor] = self._model(batch.to(self.device), step)
            total = torch.stack([loss.float() for loss in losses.values()]).sum()
            self._accelerator.backward(total * share)
        return {name: loss.detach().float() for name, loss in losses.items()}

    def update(self, max_grad_norm: float | None) -> Tensor | None:
        """Take one optimizer step and clear the gradients; return the norm if it is clipped."""
        norm = None
        if max_grad_norm is not None:
            groups = self.optimizer.param_groups
            norm = clip_grad_norm_([p for group in groups for p in group["params"]], max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def gather(self, value: T) -> list[T]:
        """Collect a plain value from every process, in the order of ranks; also a barrier."""
        if self._host_group is None:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value, group=self._host_group)
        return values

    def require_equal(self, value: object, problem: str) -> None:
        """Compare a plain value over all processes; also a barrier.

        Args:
            value: Compared by the SHA-256 of its `repr`.
            problem: What other processes have if it differs, and what to do.

        Raises:
            RunError: In every process, if the value of any process differs.
        """
        digest = hashlib.sha256(repr(value).encode("utf-8", "surrogateescape")).hexdigest()
        first, *others = self.gather(digest)
        different = [rank for rank, other in enumerate(others, start=1) if other != first]
        if different:
            ranks = ", ".join(map(str, different))
            raise RunError(f"the processes of rank {ranks} have {problem}")

    def largest(self, value: int) -> int:
        """Return the largest value of any process; all processes get the same answer."""
        if self._host_group is None:
            return value
        shared = torch.tensor(value)
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self._host_group)
        return int(shared.item())

    @contextmanager
    def lost_peers_named(self) -> Iterator[None]:
        """Turn the error of a lost connection into one line.

        Raises:
            LostProcessError: If another process of the launch ended inside of the body.
        """
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or not _is_lost_connection(error):
                raise
            raise LostProcessError(
                f"process {self.rank} of {self.world} lost the connection to the others, because "
                "one of them ended; its own message says why. The last saved state is intact"
            ) from error

    def shutdown(self) -> None:
        """Release network and optimizer, so that the process can leave its group at exit.

        The group itself stays until exit: torch cannot join the launcher's group a second time, and
        another stage may follow in this process.
        """
        self._model = None
        self._optimizer = None
        self._accelerator.free_memory()
        gc.collect()
        if self._host_group is not None:
            dist.destroy_process_group(self._host_group)
            self._host_group = None
        # accelerate keeps precision and ranks for the life of the process; another run may differ.
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(reset_partial_state=True)

    def describe_machine(self) -> dict[str, Any]:
        """Return platform, processor and device, for the log."""
        on_gpu = self.device.type == "cuda"
        return {
            "platform": platform.platform(),
            "python": platform.python_version(),
            "cpus": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "processes": self.world,
            "device": torch.cuda.get_device_name(self.device) if on_gpu else self.device.type,
        }

    def peak_memory_mib(self) -> float:
        """Return the peak memory so far: of the device on a GPU, else of this process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**20
        return _peak_resident_mib()


class StopRequest:
    """Records SIGINT and SIGTERM until the current step is done.

    A second signal kills, except under `torchrun`.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        """The signal that asked to stop; 0: none."""
        self._owner = os.getpid()

    @contextmanager
    def catch_signals(self) -> Iterator[None]:
        """Catch both signals inside the body; only the main thread receives signals.

        One that arrives too late to stop the body is delivered after it, so that no further stage
        starts.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self._record)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        if self.signal_number:
            signal.raise_signal(self.signal_number)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:
            # This is a forked loader process: Ctrl-C reaches it too, but the run needs its batch.
            return
        self.signal_number = number
        if not dist.is_torchelastic_launched():  # it repeats signals, and kills after 30 seconds
            signal.signal(number, signal.SIG_DFL)


def _is_lost_connection(error: RuntimeError) -> bool:
    """Return whether an error of a collective says that another process is gone."""
    words = ("closed by peer", "reset by peer", "broken pipe", "connection refused", "timed out")
    lines = str(error).lower()
    return isinstance(error, dist.DistError) or any(word in lines for word in words)


def _join_after_restart() -> None:
    """Form the process group of a restarted launch under names of its own.

    The store of `torchrun` outlives a restart, with the addresses of the killed processes. A
    process that reads them before they are overwritten connects to nobody. On several machines
    the count of restarts differs, so there the launch sets TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("LOCAL_WORLD_SIZE") != os.environ["WORLD_SIZE"]:
        return
    store, rank, world = next(rendezvous("env://"))
    dist.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        store=PrefixStore(f"restart {restarts}", store),
        rank=rank,
        world_size=world,
        timeout=COLLECTIVE_TIMEOUT,
    )


def _leave_group() -> None:
    """Leave the process group at exit, after `shutdown` has released everything that uses it."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _peak_resident_mib() -> float:
    """Return the peak resident memory of this process so far."""
    if sys.platform == "win32":
        return float("nan")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
