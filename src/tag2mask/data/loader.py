"""Endless training batches whose content depends only on seed, world size and batch number.

Each batch is a pure function of its number. The number of workers therefore does not matter, and a
run resumes exactly by starting at its step.
"""

from __future__ import annotations

import copy
import itertools
import signal
import threading
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.transforms import BLACK, Augmented, Color, augment
from tag2mask.errors import DataError, LostProcessError
from tag2mask.types import IGNORE, Batch, Sample


class BatchSizes(NamedTuple):
    """Images per batch and process; the number may change once."""

    early: int
    late: int
    late_from: int
    """Number of the first batch of the late size."""

    def at(self, number: int) -> int:
        """Return the number of images in one batch."""
        return self.early if number < self.late_from else self.late

    def before(self, number: int) -> int:
        """Return the number of images in all earlier batches."""
        early = min(number, self.late_from)
        return early * self.early + (number - early) * self.late


class _Stream(NamedTuple):
    """An endless sequence of epochs over some images; every batch takes its next ones."""

    indices: npt.NDArray[np.int64]
    """Of the source, rising."""
    sizes: BatchSizes
    key: tuple[int, ...] = ()
    """Added to the seeds of order and crops, so that each stream draws its own numbers."""

    def positions(self, number: int, rank: int, world: int) -> range:
        """Return the positions in the sequence that go into one batch of one process."""
        size = self.sizes.at(number)
        first = self.sizes.before(number) * world + rank * size
        return range(first, first + size)


FAVORED_KEY = (1, 1)
"""Key of the images that every batch has some of. Seeds of the other images have fewer numbers."""


class Batches(Iterator[Batch]):
    """Endless iterator over training batches; see `batches`."""

    sizes: BatchSizes
    skipped: dict[str, str]
    """Unreadable images so far: name -> reason; another image replaces each."""

    def __init__(self, reader: _BatchReader, start: int, workers: int, seed: int) -> None:
        self.sizes = reader.sizes
        self.skipped = {}
        loader = DataLoader(
            reader,
            batch_size=None,  # the reader returns complete batches
            sampler=itertools.count(start),
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_outlive_signals,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seed),  # leaves the global generator alone
        )
        self._iterator: Iterator[dict[str, Any]] | None = _start(loader)

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            DataError: If an image cannot be read and `data.strict` is set, or no image can be read.
            LostProcessError: If a worker process died.
        """
        if self._iterator is None:
            raise StopIteration
        try:
            fields = next(self._iterator)
        except (RuntimeError, ConnectionError, EOFError) as error:
            self.close()
            if not _is_worker_death(error):
                raise
            reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(". ")
            raise LostProcessError(
                f"a data loader process died ({reason}), often "
                "because memory or shared memory is full; lower run.workers or optim.batch_size"
            ) from error
        if "error" in fields:
            self.close()
            raise fields["error"]
        self.skipped.update(fields.pop("skipped"))
        return Batch(**fields)

    def close(self) -> None:
        """Stop the worker processes and exhaust the iterator."""
        self._iterator = None


def batches(
    source: Source,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    late_batch_size: int | None = None,
    late_from: int = 0,
    workers: int = 1,
    rank: int = 0,
    world: int = 1,
    start: int = 0,
    masks: bool = False,
    favored: Sequence[int] = (),
    favored_share: float = 0.0,
    padding: Color = BLACK,
) -> Batches:
    """Load augmented training batches endlessly, from batch number `start` on.

    Each epoch is a permutation of the source drawn from (seed, epoch). A batch that an epoch leaves
    incomplete is filled from the next one. Crops are drawn from (seed, epoch, sample index).

    Args:
        source: Training images.
        config: Crop, sizes, flips and colors. With `strict` an unreadable image is an error;
            otherwise the next readable image replaces it and `skipped` records it.
        batch_size: Images per batch and process.
        seed: Seed of order and crops.
        late_batch_size: Images per batch and process from batch number `late_from` on; None keeps
            `batch_size`. Order and crops do not change, only their division into batches.
        late_from: See `late_batch_size`.
        workers: Loader processes with one thread each; 0 loads in this process.
        rank: Number of this process among `world`; their batches of one number are disjoint.
        world: Number of training processes.
        start: Number of the first batch; a resumed run starts at the number of finished steps.
        masks: Also load masks; otherwise no mask is decoded. Images without mask are ignored
            everywhere.
        favored: Indices of images that every batch has some of, in an order of their own.
        favored_share: Share of the favored images in each batch; at least one image.
        padding: Color around images that are smaller than the crop.

    Raises:
        DataError: If the source is empty, or masks are needed and it has none.
    """
    if len(source) == 0:
        raise DataError(
            "the data set has no image to train on; check data.root, data.split and data.classes"
        )
    if masks and not source.mask_indices:
        raise DataError(
            "this method learns from masks, and no image has one; set data.labels to a folder that "
            "'tag2mask label' wrote"
        )
    sizes = BatchSizes(
        batch_size, batch_size if late_batch_size is None else late_batch_size, late_from
    )
    streams = _divide_batches(len(source), sizes, favored, favored_share)
    reader = _BatchReader(source, config, streams, seed, rank, world, masks, padding)
    return Batches(reader, start, workers, seed)


def _divide_batches(
    count: int, sizes: BatchSizes, favored: Sequence[int], share: float
) -> list[_Stream]:
    """Divide every batch between all images and the favored ones."""
    everything = np.arange(count)
    if not 0 < len(favored) < count:
        return [_Stream(everything, sizes)]
    early, late = (max(1, round(size * share)) for size in sizes[:2])
    often = BatchSizes(early, late, sizes.late_from)
    rest = BatchSizes(sizes.early - early, sizes.late - late, sizes.late_from)
    return [_Stream(everything, rest), _Stream(np.sort(favored), often, FAVORED_KEY)]


class _BatchReader(Dataset[dict[str, Any]]):
    """Map a batch number to the fields of the batch; runs inside the workers."""

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        streams: Sequence[_Stream],
        seed: int,
        rank: int,
        world: int,
        masks: bool,
        padding: Color,
    ) -> None:
        early, late = (sum(stream.sizes[part] for stream in streams) for part in (0, 1))
        self.sizes = BatchSizes(early, late, streams[0].sizes.late_from)
        self._streams = streams
        self._source = copy.copy(source)
        self._source.reads_masks = masks
        self._config = config
        self._seed = seed
        self._rank = rank
        self._world = world
        self._masks = masks
        self._padding = padding
        self._orders: dict[tuple[int, ...], npt.NDArray[np.int64]] = {}

    def __getitem__(self, number: int) -> dict[str, Any]:
        skipped: dict[str, str] = {}
        try:
            loaded = [
                self._load(stream, position, skipped)
                for stream in self._streams
                for position in stream.positions(number, self._rank, self._world)
            ]
            return _stack_fields(loaded, self._masks) | {"skipped": skipped}
        except DataError as error:  # returned as a value: torch would add a traceback to its text
            return {"error": error}

    def _load(
        self, stream: _Stream, position: int, skipped: dict[str, str]
    ) -> tuple[Sample, Augmented]:
        """Read and crop the sample at one position of the endless sequence of epochs."""
        epoch, offset = divmod(position, len(stream.indices))
        at = int(self._order(stream, epoch)[offset])
        sample = self._read_readable(stream, at, skipped)
        # spawn_key, not a list as entropy: lists are zero-padded, so that (1, 2) equals (1, 2, 0)
        key = (epoch, int(stream.indices[at]), *stream.key)
        seed = np.random.SeedSequence(self._seed, spawn_key=key)
        return sample, augment(sample, self._config, np.random.default_rng(seed), self._padding)

    def _order(self, stream: _Stream, epoch: int) -> npt.NDArray[np.int64]:
        """Return the permutation of an epoch; only the last two are kept."""
        key = (epoch, *stream.key)
        if key not in self._orders:
            seed = np.random.SeedSequence(self._seed, spawn_key=key)
            self._orders.pop((epoch - 2, *stream.key), None)
            self._orders[key] = np.random.default_rng(seed).permutation(len(stream.indices))
        return self._orders[key]

    def _read_readable(self, stream: _Stream, at: int, skipped: dict[str, str]) -> Sample:
        """Read a sample of a stream or, unless `strict`, its next readable one."""
        for index in np.roll(stream.indices, -at).tolist():
            try:
                return self._source[index]
            except DataError as error:
                if self._config.strict:
                    raise
                skipped[self._source.names[index]] = str(error)
        reason = next(iter(skipped.values()))
        count = len(stream.indices)
        raise DataError(f"none of the {count} images can be read; the first: {reason}")


def _stack_fields(loaded: list[tuple[Sample, Augmented]], masks: bool) -> dict[str, Any]:
    """Stack crops into the tensors of a Batch."""
    image = torch.from_numpy(np.stack([crop.image for _, crop in loaded]))  # (N, H, W, 3)
    tags = np.stack([sample.tags for sample, _ in loaded])
    fields = {
        "image": image.permute(0, 3, 1, 2).contiguous(),  # (N, 3, H, W)
        "tags": torch.from_numpy(tags.astype(np.float32)),
        "valid": torch.from_numpy(np.stack([crop.valid for _, crop in loaded])),
        "name": tuple(sample.name for sample, _ in loaded),
        "max_tags": int(tags.sum(axis=1).max()),
    }
    if masks:
        masks_of_crops = np.stack([_crop_mask(crop) for _, crop in loaded])
        fields["mask"] = torch.from_numpy(masks_of_crops.astype(np.int64))
        fields["masked_rows"] = tuple(
            row for row, (_, crop) in enumerate(loaded) if crop.mask is not None
        )
    return fields


def _crop_mask(crop: Augmented) -> npt.NDArray[np.uint8]:
    """(S, S) mask of a crop, ignored everywhere if the image has none."""
    return np.full_like(crop.valid, IGNORE, dtype=np.uint8) if crop.mask is None else crop.mask


def _unchanged(fields: Any) -> Any:
    """Replace torch's collate function, which would rebuild every field."""
    return fields


def _outlive_signals(worker: int) -> None:
    """Let a worker survive the signal that stops a run: the run still needs its batch.

    Ctrl-C and many schedulers signal a whole process group. The process that trains saves its state
    after the current step, then ends the workers. A second signal ends a worker.
    """

    def survive(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, survive)
    signal.signal(signal.SIGINT, survive)


def _is_worker_death(error: Exception) -> bool:
    """Return whether a worker died: torch says so, or its end of a connection is gone."""
    lost = isinstance(error, ConnectionError | EOFError)
    return lost or str(error).startswith("DataLoader worker (pid")


def _start(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Start the workers without torch's SIGCHLD handler.

    The handler raises a worker's death at any line of the main thread. Without it, the death is
    raised where the next batch is requested, within five seconds.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if before is not None:  # None: a handler that Python did not install and cannot put back
        signal.signal(signal.SIGCHLD, before)
    return iterator
