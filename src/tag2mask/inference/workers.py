"""Make masks in several processes, in order.

On the CPU, each worker runs network, refiners and thresholds of one image at a time in one thread:
two threads speed up one image less than two images. A network on a GPU stays in this process, and
the workers refine and threshold. Results equal those of one process up to rounding, which can
depend on the number of threads. A thread reads the next image while the network is busy.
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
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch

from tag2mask.errors import DataError, LostProcessError
from tag2mask.functional.bands import is_large
from tag2mask.inference.large_images import needs_tiles
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import Segmenter, image_tensor
from tag2mask.inference.uncertainty import postprocess_with_parts
from tag2mask.io.signals import signals_delayed
from tag2mask.types import Image, Mask, Prediction

AHEAD = 2
"""Images submitted per worker before the first result is awaited."""


class ImageInput(NamedTuple):
    """One image of which a mask is made."""

    image: Image
    tags: npt.NDArray[np.uint8] | None
    """(F,) in {0, 1}; None lets the classifier select the classes."""
    name: str


Input = tuple[str, ImageInput | DataError]
"""Name of an image, and the image or why it cannot be read."""


class Submitted(NamedTuple):
    """An image in the hands of a worker."""

    future: Future[Any]
    """What the worker returns; text says why there is no mask."""
    complete: Callable[[Any], Prediction]
    """Adds what stayed in this process."""


class MaskWorkers:
    """Processes that make masks. A context manager: no process outlives it, however it ends."""

    def __init__(self, segmenter: Segmenter, workers: int) -> None:
        """Start the workers; they get ready while the first images are read.

        Args:
            segmenter: Copied to the workers, without the network if that is on a GPU.
            workers: Number of processes.
        """
        self._segmenter = segmenter
        self._with_network = segmenter.device.type == "cpu"
        self._others = set(multiprocessing.active_children())
        method = _start_method()
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # imported once, for all workers
        part = segmenter if self._with_network else _on_cpu(segmenter.postprocessor)
        packed = pickle.dumps(part)
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
        with signals_delayed():
            if kind is not None:
                for process in self._processes():
                    process.terminate()
            self._executor.shutdown(wait=True, cancel_futures=True)

    def submit(self, one: ImageInput) -> Submitted:
        """Submit one image to a worker.

        Raises:
            DataError: If a network on a GPU refuses the image.
            LostProcessError: If a worker has died.
        """
        if self._with_network:
            future = self._start(_segment, one)
            return Submitted(future, lambda made: replace(made, image=one.image))
        if needs_tiles(one.image.shape, self._segmenter.config):
            done: Future[Any] = Future()
            done.set_result(self._segmenter.segment(one.image, one.tags, name=one.name))
            return Submitted(done, lambda made: made)
        output = self._segmenter.infer(one.image, one.tags, name=one.name)
        selected = output.selected._replace(maps=output.selected.maps.cpu())
        future = self._start(_make_mask, (output.image, selected))
        return Submitted(future, lambda made: self._segmenter.build_prediction(output, *made))

    def _start(self, function: Callable[[bytes], Any], job: object) -> Future[Any]:
        try:
            return self._executor.submit(function, pickle.dumps(job))
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def _processes(self) -> list[BaseProcess]:
        return [one for one in multiprocessing.active_children() if one not in self._others]


def predict_in_workers(
    segmenter: Segmenter, inputs: Iterable[Input], workers: int
) -> Generator[tuple[str, Prediction | DataError]]:
    """Make the masks of images, in order; errors pass through, and new ones join them.

    Args:
        segmenter: Makes the masks.
        inputs: Name, and the image or why it cannot be read; consumed a few images ahead of the
            results.
        workers: Number of processes; 1 is this one.

    Raises:
        LostProcessError: If a worker died.
    """
    inputs = _read_ahead(inputs)
    if workers == 1:
        for name, one in inputs:
            yield name, _segment_here(segmenter, name, one)
        return
    with signals_delayed():  # so that no signal comes between start and `with`
        pool = MaskWorkers(segmenter, workers)
    with pool:
        waiting: deque[tuple[str, Submitted | DataError]] = deque()
        for name, one in inputs:
            waiting.append((name, _submit(pool, name, one)))
            while len(waiting) > (workers if _is_large(one) else AHEAD * workers):
                yield _await_prediction(*waiting.popleft())
        while waiting:
            yield _await_prediction(*waiting.popleft())


def _read_ahead(inputs: Iterable[Input]) -> Generator[Input]:
    """Yield what an iterator gives; a thread reads the next image while this one is processed.

    After a large image the thread waits, because two of them would take too much memory.
    """
    iterator = iter(inputs)
    with ThreadPoolExecutor(1, thread_name_prefix="read ahead") as pool:
        coming: Future[Input | None] = pool.submit(next, iterator, None)
        while (found := coming.result()) is not None:
            is_large = _is_large(found[1])
            if not is_large:
                coming = pool.submit(next, iterator, None)
            yield found
            del found
            if is_large:
                coming = pool.submit(next, iterator, None)


def _is_large(one: ImageInput | DataError) -> bool:
    """Return whether an image takes so much memory that no other is read meanwhile."""
    return not isinstance(one, DataError) and is_large(one.image.shape)


def _segment_here(
    segmenter: Segmenter, name: str, one: ImageInput | DataError
) -> Prediction | DataError:
    """Make one prediction in this process; an error names the image."""
    if isinstance(one, DataError):
        return one
    try:
        return segmenter.segment(one.image, one.tags, name=one.name)
    except DataError as error:
        return DataError(f"{name}: {error}")


def _submit(pool: MaskWorkers, name: str, one: ImageInput | DataError) -> Submitted | DataError:
    """Submit one image; an error names it."""
    if isinstance(one, DataError):
        return one
    try:
        return pool.submit(one)
    except DataError as error:
        return DataError(f"{name}: {error}")


def _await_prediction(
    name: str, submitted: Submitted | DataError
) -> tuple[str, Prediction | DataError]:
    """Wait for one image."""
    if isinstance(submitted, DataError):
        return name, submitted
    try:
        made = submitted.future.result()
    except BrokenProcessPool as error:
        raise _worker_died() from error
    if isinstance(made, str):
        return name, DataError(f"{name}: {made}")
    return name, submitted.complete(made)


def _start_method() -> str:
    """Return how workers start: never by a bare fork, which can hang on this process's threads."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in known else "spawn"


def _worker_died() -> LostProcessError:
    return LostProcessError(
        "a worker process was killed, probably because memory ran out; use fewer --workers"
    )


def _on_cpu(postprocessor: PostProcessor) -> PostProcessor:
    refiner, crf = (
        copy.deepcopy(one).cpu() if one else None
        for one in (postprocessor.refiner, postprocessor.crf)
    )
    return postprocessor._replace(refiner=refiner, crf=crf)


_parts: list[Any] = []
"""The worker's own segmenter or postprocessor; empty in the main process."""


def _start_worker(packed: bytes) -> None:
    """Set up a worker: it ignores keyboard interrupts and ends when its parent does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    # A worker starts no process, but numba makes a lock for those of the default method. That of a
    # fork has no name, so nothing is left of it when the parent ends the worker.
    if "fork" in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method("fork", force=True)
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    _parts.append(pickle.loads(packed))


def _follow_parent() -> None:
    """End this process when the parent is gone, even if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _segment(packed: bytes) -> Prediction | str:
    """Make one prediction in a worker, without its image; an error comes back as its text."""
    one: ImageInput = pickle.loads(packed)
    segmenter: Segmenter = _parts[0]
    try:
        made = segmenter.segment(one.image, one.tags, name=one.name)
    except DataError as error:
        return str(error)
    return replace(made, image=made.image[:0])


def _make_mask(packed: bytes) -> tuple[Mask, dict[str, float]] | str:
    """Make one mask and its parts of uncertainty in a worker; an error comes back as its text."""
    job: tuple[Image, SelectedMaps] = pickle.loads(packed)
    image, selected = job
    postprocessor: PostProcessor = _parts[0]
    try:
        made, parts = postprocess_with_parts(postprocessor, image_tensor(image), selected)
    except DataError as error:
        return str(error)
    return made.mask.numpy(), parts
