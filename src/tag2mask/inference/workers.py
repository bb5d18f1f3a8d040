"""Refine and threshold in several processes, in order; the network stays in this one.

Each worker refines one image at a time in one thread. This suits refiners that do not scale well
over threads, such as a dense CRF. Results equal those of one process: refiners do not depend on the
number of threads, and everything that does (network, propagation) runs here first.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Self

import torch

from tag2mask.errors import DataError, RunError
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter, image_tensor
from tag2mask.types import Image, Mask, Prediction

AHEAD = 2
"""Images submitted per worker before the first result is awaited."""

Submitted = Future[Mask | str]
"""A mask, or the reason why there is none."""


class MaskWorkers:
    """Processes that make masks. A context manager: no process outlives it, however it ends."""

    def __init__(self, segmenter: Segmenter, workers: int) -> None:
        """Start the workers; they get ready while the network runs on the first images.

        Args:
            segmenter: Its refiners are copied to the workers and run on the CPU there.
            workers: Number of processes.
        """
        self._others = set(multiprocessing.active_children())
        method = _start_method()
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # imported once, for all workers
        packed = pickle.dumps(_on_cpu(segmenter.postprocessor))
        self._executor = ProcessPoolExecutor(
            workers, context, initializer=_start_worker, initargs=(packed,)
        )
        for _ in range(workers):
            self._executor.submit(os.getpid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            for process in self._processes():
                process.terminate()
        self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, output: InferenceOutput) -> Submitted:
        """Submit one image to a worker.

        Raises:
            RunError: If a worker has died.
        """
        selected = output.selected._replace(maps=output.selected.maps.cpu())
        try:
            return self._executor.submit(_make_mask, pickle.dumps((output.image, selected)))
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def _processes(self) -> list[BaseProcess]:
        return [one for one in multiprocessing.active_children() if one not in self._others]


def predict_in_workers(
    segmenter: Segmenter, outputs: Iterable[tuple[str, InferenceOutput | DataError]], workers: int
) -> Generator[tuple[str, Prediction | DataError]]:
    """Make the masks of images, in order; errors pass through, and new ones join them.

    Args:
        segmenter: Has computed the outputs.
        outputs: Name, and what the network computed or why it could not; consumed a few images
            ahead of the results.
        workers: Number of processes; 1 is this one.

    Raises:
        RunError: If a worker died.
    """
    if workers == 1:
        for name, output in outputs:
            yield name, _prediction(segmenter, name, output, segmenter.postprocess)
        return
    with MaskWorkers(segmenter, workers) as pool:
        waiting: deque[tuple[str, InferenceOutput | DataError, Submitted | None]] = deque()
        for name, output in outputs:
            submitted = None if isinstance(output, DataError) else pool.submit(output)
            waiting.append((name, output, submitted))
            if len(waiting) > AHEAD * workers:
                yield _await_prediction(segmenter, *waiting.popleft())
        while waiting:
            yield _await_prediction(segmenter, *waiting.popleft())


def _await_prediction(
    segmenter: Segmenter,
    name: str,
    output: InferenceOutput | DataError,
    submitted: Submitted | None,
) -> tuple[str, Prediction | DataError]:
    """Wait for one image."""

    def result(_: InferenceOutput) -> Mask:
        assert submitted is not None
        try:
            mask = submitted.result()
        except BrokenProcessPool as error:
            raise _worker_died() from error
        if isinstance(mask, str):
            raise DataError(mask)
        return mask

    return name, _prediction(segmenter, name, output, result)


def _prediction(
    segmenter: Segmenter,
    name: str,
    output: InferenceOutput | DataError,
    make_mask: Callable[[InferenceOutput], Mask],
) -> Prediction | DataError:
    """Make one prediction; an error names the image."""
    if isinstance(output, DataError):
        return output
    try:
        return segmenter.build_prediction(output, make_mask(output))
    except DataError as error:
        return DataError(f"{name}: {error}")


def _start_method() -> str:
    """Return how workers start: never by a bare fork, which can hang on this process's threads."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in known else "spawn"


def _worker_died() -> RunError:
    return RunError(
        "a worker process was killed, probably because memory ran out; use fewer --workers"
    )


def _on_cpu(postprocessor: PostProcessor) -> PostProcessor:
    refiner, crf = (
        copy.deepcopy(one).cpu() if one else None
        for one in (postprocessor.refiner, postprocessor.crf)
    )
    return postprocessor._replace(refiner=refiner, crf=crf)


_postprocessors: list[PostProcessor] = []
"""The worker's own; empty in the main process."""


def _start_worker(packed: bytes) -> None:
    """Set up a worker: it ignores keyboard interrupts and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    _postprocessors.append(pickle.loads(packed))


def _follow_parent() -> None:
    """End this process when the parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_mask(packed: bytes) -> Mask | str:
    """Make one mask in a worker; an error comes back as its text."""
    job: tuple[Image, SelectedMaps] = pickle.loads(packed)
    image, selected = job
    try:
        mask: Mask = _postprocessors[0](image_tensor(image), selected).mask.numpy()
    except DataError as error:
        return str(error)
    return mask
