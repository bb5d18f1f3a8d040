"""Make masks in several processes, in order.

On the CPU, each worker runs network, refiners and thresholds of one image at a time in one thread:
two threads speed up one image less than two images. A network on a GPU stays in this process, and
the workers refine and threshold. Results equal those of one process up to rounding, which can
depend on the number of threads.

A thread decodes the next images while the network is busy. If images share a forward pass, another
thread runs the network on the next group while this one is refined and written.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from functools import partial
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, NamedTuple, Self

import torch

from tag2mask.errors import DataError, LostProcessError
from tag2mask.inference.batches import (
    ImageInput,
    Input,
    Numbered,
    in_order,
    read_groups,
    run_ahead,
)
from tag2mask.inference.large_images import needs_tiles
from tag2mask.inference.postprocessing import PostProcessor, SelectedMaps
from tag2mask.inference.segmenter import InferenceOutput, Segmenter, image_tensor
from tag2mask.inference.uncertainty import postprocess_with_parts
from tag2mask.io.signals import signals_delayed
from tag2mask.types import Image, Mask, Prediction

AHEAD = 2
"""Passes submitted per worker before the first result is awaited."""

Found = Prediction | DataError
"""The mask of an image, or why there is none."""
Finish = Callable[[], Found]
"""Does, or awaits, what is left to do for an image."""


class Begun(NamedTuple):
    """An image whose maps are computed, or that is in the hands of a worker."""

    numbered: Numbered
    finish: Finish


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

    def submit(self, group: Sequence[ImageInput]) -> list[Finish]:
        """Submit images that share a pass, in which a network on a GPU sees them now.

        Returns:
            Per image what awaits its mask; it raises LostProcessError if the worker has died.

        Raises:
            LostProcessError: If a worker has died.
        """
        if self._with_network:
            future = self._start(_segment, group)
            return [partial(_await_mask, future, at, one) for at, one in enumerate(group)]
        return [self._refine(one) for one in _infer(self._segmenter, group)]

    def _refine(self, found: InferenceOutput | Found) -> Finish:
        """Let a worker refine what a network on a GPU computed."""
        if not isinstance(found, InferenceOutput):
            return lambda: found
        selected = found.selected._replace(maps=found.selected.maps.cpu())
        future = self._start(_make_mask, (found.image, selected))

        def finish() -> Found:
            made: tuple[Mask, dict[str, float]] | str = _result(future)
            if isinstance(made, str):
                return DataError(made)
            return self._segmenter.build_prediction(found, *made)

        return finish

    def _start(self, function: Callable[[bytes], Any], job: object) -> Future[Any]:
        try:
            return self._executor.submit(function, pickle.dumps(job))
        except BrokenProcessPool as error:
            raise _worker_died() from error

    def _processes(self) -> list[BaseProcess]:
        return [one for one in multiprocessing.active_children() if one not in self._others]


def predict_in_workers(
    segmenter: Segmenter, inputs: Iterable[Input], workers: int
) -> Generator[tuple[str, Found]]:
    """Make the masks of images, in order; errors pass through, and new ones join them.

    Args:
        segmenter: Makes the masks.
        inputs: Name, and the image or why it cannot be read; consumed a few images ahead of the
            results.
        workers: Number of processes; 1 is this one.

    Raises:
        LostProcessError: If a worker died.
    """
    batch_size = segmenter.batch_size
    groups = read_groups(inputs, batch_size, segmenter.working_size)
    with ExitStack() as stack:
        submit: Callable[[Sequence[ImageInput]], list[Finish]] = partial(_infer_here, segmenter)
        if workers > 1:
            with signals_delayed():  # so that no signal comes between start and `with`
                submit = stack.enter_context(MaskWorkers(segmenter, workers)).submit
        begun: Generator[list[Begun]] = (_begin(submit, group) for group in groups)
        if batch_size > 1:
            begun = run_ahead(begun, lambda group: group[-1].numbered.is_large)
        stack.enter_context(closing(begun))
        kept = 0 if workers == 1 else AHEAD * workers * batch_size
        yield from in_order(_finish_all(begun, kept, workers))


def _begin(
    submit: Callable[[Sequence[ImageInput]], list[Finish]], group: Sequence[Numbered]
) -> list[Begun]:
    """Run the network on images that share a pass, or let a worker do it."""
    first = group[0].one
    if isinstance(first, DataError):  # is always a group of its own
        return [Begun(group[0], lambda: first)]
    finishes = submit([one for _, _, one in group if isinstance(one, ImageInput)])
    return [
        Begun(numbered, partial(_finish_named, numbered.name, finish))
        for numbered, finish in zip(group, finishes, strict=True)
    ]


def _finish_named(name: str, finish: Finish) -> Found:
    """Finish an image; an error names it."""
    found = finish()
    return DataError(f"{name}: {found}") if isinstance(found, DataError) else found


def _finish_all(
    begun: Iterable[list[Begun]], kept: int, kept_if_large: int
) -> Generator[tuple[int, tuple[str, Found]]]:
    """Finish images while `kept` later ones wait, fewer if they are large."""
    waiting: deque[Begun] = deque()
    for group in begun:
        waiting.extend(group)
        while len(waiting) > (min(kept, kept_if_large) if group[-1].numbered.is_large else kept):
            yield _finish(waiting.popleft())
    while waiting:
        yield _finish(waiting.popleft())


def _finish(begun: Begun) -> tuple[int, tuple[str, Found]]:
    return begun.numbered.position, (begun.numbered.name, begun.finish())


def _infer_here(segmenter: Segmenter, group: Sequence[ImageInput]) -> list[Finish]:
    """Run the network on images that share a pass; refining them is left to do."""
    return [partial(_postprocess, segmenter, found) for found in _infer(segmenter, group)]


def _infer(segmenter: Segmenter, group: Sequence[ImageInput]) -> Sequence[InferenceOutput | Found]:
    """Run the network on images in one pass, or one by one if that takes too much memory."""
    if len(group) > 1:
        with suppress(torch.OutOfMemoryError):
            return segmenter.infer_together(group)
    return [_infer_one(segmenter, one) for one in group]


def _infer_one(segmenter: Segmenter, one: ImageInput) -> InferenceOutput | Found:
    """Run the network on one image; a large one is finished."""
    try:
        if needs_tiles(one.image.shape, segmenter.config):
            return segmenter.segment(one.image, one.tags, name=one.name)
        return segmenter.infer(one.image, one.tags, name=one.name)
    except DataError as error:
        return error


def _postprocess(segmenter: Segmenter, found: InferenceOutput | Found) -> Found:
    """Refine and threshold what the network computed."""
    if not isinstance(found, InferenceOutput):
        return found
    try:
        return segmenter.build_prediction(found, *segmenter.postprocess(found))
    except DataError as error:
        return error


def _result(future: Future[Any]) -> Any:
    """Wait for a worker."""
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise _worker_died() from error


def _await_mask(future: Future[Any], index: int, one: ImageInput) -> Found:
    """Wait for a group of images and return the mask of one of them."""
    made: Prediction | str = _result(future)[index]
    return DataError(made) if isinstance(made, str) else replace(made, image=one.image)


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


def _segment(packed: bytes) -> list[Prediction | str]:
    """Make predictions in a worker, without their images; an error comes back as its text."""
    group: list[ImageInput] = pickle.loads(packed)
    segmenter: Segmenter = _parts[0]
    found = [_postprocess(segmenter, one) for one in _infer(segmenter, group)]
    return [
        str(made) if isinstance(made, DataError) else replace(made, image=made.image[:0])
        for made in found
    ]


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
