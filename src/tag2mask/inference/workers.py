"""Masks cut in several processes at once, in order: the network stays here, refiners work there.

Each worker refines one image at a time in one thread, which suits refiners that do not share their
work among threads well, as a dense CRF. What is cut there equals what is cut here: refiners do not
depend on the number of threads, and everything that does (networks, propagation) is done before.
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
"""Images handed in per worker before the first result is waited for."""


class MaskWorkers:
    """Processes that cut masks. A context manager: none of them outlives it, whatever ends it."""

    def __init__(self, segmenter: Segmenter, workers: int) -> None:
        """Start the workers; they get ready while the first images are looked at.

        Args:
            segmenter: Its refiners are copied to the workers, and work on the processor there.
            workers: Number of processes.
        """
        self._others = set(multiprocessing.active_children())
        method = _start_method()
        context = multiprocessing.get_context(method)
        if method == "forkserver":
            context.set_forkserver_preload([__name__])  # imported once, for all workers
        packed = pickle.dumps(_on_cpu(segmenter.postprocessor))
        self._executor = ProcessPoolExecutor(
            workers, context, initializer=_begin, initargs=(packed,)
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

    def submit(self, inference_output: InferenceOutput) -> Future[Mask | str]:
        """Hand one image to a worker; the future holds its mask, or why it is refused.

        Raises:
            RunError: If a worker has died.
        """
        selected_maps = inference_output.selected_maps._replace(
            maps=inference_output.selected_maps.maps.cpu()
        )
        try:
            return self._executor.submit(
                _cut, pickle.dumps((inference_output.image, selected_maps))
            )
        except BrokenProcessPool as error:
            raise _died() from error

    def _processes(self) -> list[BaseProcess]:
        return [one for one in multiprocessing.active_children() if one not in self._others]


def predict_in_workers(
    segmenter: Segmenter, images: Iterable[tuple[str, InferenceOutput | DataError]], workers: int
) -> Generator[tuple[str, Prediction | DataError]]:
    """Cut the masks of images, in order; faults pass through, and join those of cutting.

    Args:
        segmenter: Has examined the images.
        images: Name, and what was seen or why it could not be; taken a few ahead of the results.
        workers: Processes that cut; 1: this one.

    Raises:
        RunError: If a worker died.
    """
    if workers == 1:
        for name, image in images:
            yield name, _present(segmenter, name, image, lambda one: segmenter.cut(one))
        return
    with MaskWorkers(segmenter, workers) as pool:
        waiting: deque[tuple[str, InferenceOutput | DataError, Future[Mask | str] | None]] = deque()
        for name, image in images:
            handed = None if isinstance(image, DataError) else pool.submit(image)
            waiting.append((name, image, handed))
            if len(waiting) > AHEAD * workers:
                yield _finish(segmenter, *waiting.popleft())
        while waiting:
            yield _finish(segmenter, *waiting.popleft())


def _finish(
    segmenter: Segmenter,
    name: str,
    image: InferenceOutput | DataError,
    handed: Future[Mask | str] | None,
) -> tuple[str, Prediction | DataError]:
    """Wait for one image."""

    def result(_: InferenceOutput) -> Mask:
        assert handed is not None
        try:
            found = handed.result()
        except BrokenProcessPool as error:
            raise _died() from error
        if isinstance(found, str):
            raise DataError(found)
        return found

    return name, _present(segmenter, name, image, result)


def _present(
    segmenter: Segmenter,
    name: str,
    image: InferenceOutput | DataError,
    cut: Callable[[InferenceOutput], Mask],
) -> Prediction | DataError:
    """Cut one mask; a refusal names the image."""
    if isinstance(image, DataError):
        return image
    try:
        return segmenter.present(image, cut(image))
    except DataError as error:
        return DataError(f"{name}: {error}")


def _start_method() -> str:
    """How workers come to be: never by a bare fork, which threads of this process may hang."""
    known = multiprocessing.get_all_start_methods()
    return "forkserver" if "forkserver" in known else "spawn"


def _died() -> RunError:
    return RunError(
        "a worker process was killed, probably because memory ran out; use fewer --workers"
    )


def _on_cpu(postprocessor: PostProcessor) -> PostProcessor:
    refiner, crf = (copy.deepcopy(one).cpu() if one else None for one in postprocessor[1:])
    return postprocessor._replace(refiner=refiner, crf=crf)


_postprocessors: list[PostProcessor] = []
"""What a worker cuts with; empty in the main process."""


def _begin(packed: bytes) -> None:
    """Set a worker up: no keyboard interrupt of its own, an end when its parent's comes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends its workers
    threading.Thread(target=_follow_parent, daemon=True).start()
    torch.set_num_threads(1)
    _postprocessors.append(pickle.loads(packed))


def _follow_parent() -> None:
    """End this process when the parent is gone, also if it was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _cut(packed: bytes) -> Mask | str:
    """Cut one mask in a worker; a refusal comes back as its text."""
    job: tuple[Image, SelectedMaps] = pickle.loads(packed)
    image, selected_maps = job
    try:
        mask: Mask = _postprocessors[0](image_tensor(image), selected_maps).mask.numpy()
    except DataError as error:
        return str(error)
    return mask
