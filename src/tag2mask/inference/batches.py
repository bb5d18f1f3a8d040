"""Group images that the network sees at the same size, so that they share a forward pass.

Images are read in windows: a thread decodes the next one while the images of this one are
processed. Groups do not follow the order of the images; `in_order` restores it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from tag2mask.errors import DataError
from tag2mask.functional.bands import is_large
from tag2mask.types import Image

WINDOW = 4
"""Images of a window, in multiples of the largest number that share a pass. More images: fuller
passes, more memory."""
WINDOW_PIXELS = 1 << 25
"""Pixels at which a window ends, so that decoded images take at most some hundred MiB."""
PASS_PIXELS = 1 << 21
"""Pixels of the images that share a pass, at the size that the network sees; one image may be
larger. 8 images of 512 x 512 pixels take about as much memory as two of the largest ones that
`predict.max_side_px` allows by default."""

T = TypeVar("T")


class ImageInput(NamedTuple):
    """One image of which a mask is made."""

    image: Image
    tags: npt.NDArray[np.uint8] | None
    """(F,) in {0, 1}; None lets the classifier select the classes."""
    name: str


Input = tuple[str, ImageInput | DataError]
"""Name of an image, and the image or why it cannot be read."""


class Numbered(NamedTuple):
    """An image with its place in the order."""

    position: int
    name: str
    one: ImageInput | DataError

    @property
    def is_large(self) -> bool:
        """Whether it takes so much memory that no other image is read meanwhile."""
        return not isinstance(self.one, DataError) and is_large(self.one.image.shape)


SizeOf = Callable[[Image], tuple[int, int] | None]
"""The (h, w) at which the network sees an image; None if it shares no pass."""


def read_groups(
    inputs: Iterable[Input], batch_size: int, size_of: SizeOf
) -> Generator[list[Numbered]]:
    """Read images a window ahead, and yield those of like size together.

    Args:
        inputs: Name, and the image or why it cannot be read.
        batch_size: Largest number of images that share a pass; 1 keeps their order.
        size_of: Decides which images share one.
    """
    length = 1 if batch_size == 1 else WINDOW * batch_size
    for window in run_ahead(_windows(inputs, length), lambda window: window[-1].is_large):
        yield from group_by_size(window, batch_size, size_of)


def group_by_size(
    window: Sequence[Numbered], batch_size: int, size_of: SizeOf
) -> Iterator[list[Numbered]]:
    """Divide images into groups that share a pass, at most `batch_size` in each."""
    if batch_size == 1:
        yield from ([one] for one in window)
        return
    by_size: dict[tuple[int, int] | None, list[Numbered]] = {}
    for numbered in window:
        size = None if isinstance(numbered.one, DataError) else size_of(numbered.one.image)
        by_size.setdefault(size, []).append(numbered)
    for size, images in by_size.items():
        count = 1 if size is None else max(1, min(batch_size, PASS_PIXELS // (size[0] * size[1])))
        for start in range(0, len(images), count):
            yield images[start : start + count]


def in_order(found: Iterable[tuple[int, T]]) -> Generator[T]:
    """Yield values in the order of their positions, which start at 0 and have no gap."""
    early: dict[int, T] = {}
    turn = 0
    for position, value in found:
        early[position] = value
        while turn in early:
            yield early.pop(turn)
            turn += 1


def run_ahead(values: Iterable[T], waits_after: Callable[[T], bool]) -> Generator[T]:
    """Yield what an iterator gives; a thread computes the next value while this one is used.

    Args:
        values: Computed in the thread.
        waits_after: Whether a value takes so much memory that the thread waits until it is used.
    """
    iterator = iter(values)
    with ThreadPoolExecutor(1, thread_name_prefix="run ahead") as pool:
        coming: Future[T | None] = pool.submit(next, iterator, None)
        while (found := coming.result()) is not None:
            is_alone = waits_after(found)
            if not is_alone:
                coming = pool.submit(next, iterator, None)
            yield found
            del found
            if is_alone:
                coming = pool.submit(next, iterator, None)


def _windows(inputs: Iterable[Input], length: int) -> Generator[list[Numbered]]:
    """Yield images in windows of at most `length`; a window ends early where memory asks for it."""
    window: list[Numbered] = []
    pixels = 0
    for position, (name, one) in enumerate(inputs):
        numbered = Numbered(position, name, one)
        window.append(numbered)
        if not isinstance(one, DataError):
            pixels += one.image.shape[0] * one.image.shape[1]
        if len(window) == length or pixels >= WINDOW_PIXELS or numbered.is_large:
            yield window
            window, pixels = [], 0
    if window:
        yield window
