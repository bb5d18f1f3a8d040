"""Endless training batches whose content depends on (seed, world, batch) and nothing else.

Batch k is a pure function of its number, so the number of workers does not matter and a run resumes
exactly by starting at its step.
"""

from __future__ import annotations

import copy
import itertools
import signal
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.transforms import Augmented, augment
from tag2mask.errors import DataError, RunError
from tag2mask.types import Batch, Sample


class BatchSizes(NamedTuple):
    """Images per batch and process, which may change once."""

    early: int
    late: int
    late_from: int
    """Number of the first batch of the late size."""

    def at(self, number: int) -> int:
        """Images of one batch."""
        return self.early if number < self.late_from else self.late

    def before(self, number: int) -> int:
        """Images of all batches before one."""
        early = min(number, self.late_from)
        return early * self.early + (number - early) * self.late


class Batches(Iterator[Batch]):
    """Endless iterator over training batches; see `batches`."""

    sizes: BatchSizes
    skipped: dict[str, str]
    """Name of each image met so far that cannot be read -> why; another image took its place."""

    def __init__(self, reader: _BatchReader, start: int, workers: int, seed: int) -> None:
        self.sizes = reader.sizes
        self.skipped = {}
        loader = DataLoader(
            reader,
            batch_size=None,  # the reader delivers whole batches
            sampler=itertools.count(start),
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            generator=torch.Generator().manual_seed(seed),  # else it draws from the global one
        )
        self._iterator: Iterator[dict[str, Any]] | None = _start(loader)

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
            DataError: If an image cannot be read and the data are strict, or none can be read.
            RunError: If a worker process died.
        """
        if self._iterator is None:
            raise StopIteration
        try:
            fields = next(self._iterator)
        except RuntimeError as error:
            self.close()
            if not _is_death(error):
                raise
            raise RunError(
                f"a loader process died ({str(error).splitlines()[0].rstrip('. ')}); often memory "
                "or shared memory ran out: use fewer --run.workers or a smaller --optim.batch_size"
            ) from error
        if "error" in fields:
            self.close()
            raise fields["error"]
        self.skipped.update(fields.pop("skipped"))
        return Batch(**fields)

    def close(self) -> None:
        """End the worker processes; the iterator is then exhausted."""
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
) -> Batches:
    """Load augmented training batches for ever, from batch number `start` on.

    Each epoch is a permutation of the source drawn from (seed, epoch); a batch that an epoch leaves
    incomplete runs on into the next one. Crops are drawn from (seed, epoch, sample index).

    Args:
        source: What to learn from.
        config: Crop, sizes, mirror, colors; `strict` refuses unreadable images, otherwise the next
            readable one takes the place of each and `skipped` notes it.
        batch_size: Images per batch and process.
        seed: Seed of order and crops.
        late_batch_size: Images per batch and process from batch number `late_from` on; None: `batch_size`.
            Order and crops stay those of the same images in other batches.
        late_from: See `late_batch_size`.
        workers: Loader processes with one thread each; 0 loads in this process.
        rank: This process among `world`; the ranks' batches of one number are disjoint shares.
        world: Number of training processes.
        start: Number of the first batch; exact resume is `start` = steps done.
        masks: Also deliver masks. Otherwise none is even decoded.

    Raises:
        DataError: If the source is empty, or masks are asked for and it has none.
    """
    if len(source) == 0:
        raise DataError("the data set has no image to train on: check its root and its lists")
    if masks and not source.has_masks:
        raise DataError(
            "this training needs a mask for every image, but the data set has none; "
            "set data.labels to a folder that 'tag2mask label' wrote"
        )
    sizes = BatchSizes(
        batch_size, batch_size if late_batch_size is None else late_batch_size, late_from
    )
    reader = _BatchReader(source, config, sizes, seed, rank, world, masks)
    return Batches(reader, start, workers, seed)


class _BatchReader(Dataset[dict[str, Any]]):
    """Batch number -> fields of the batch; runs inside the workers."""

    def __init__(
        self,
        source: Source,
        config: DataConfig,
        sizes: BatchSizes,
        seed: int,
        rank: int,
        world: int,
        masks: bool,
    ) -> None:
        self.sizes = sizes
        self._source = copy.copy(source)
        self._source.reads_masks = masks
        self._config = config
        self._seed = seed
        self._rank = rank
        self._world = world
        self._masks = masks
        self._orders: dict[int, npt.NDArray[np.int64]] = {}

    def __getitem__(self, number: int) -> dict[str, Any]:
        skipped: dict[str, str] = {}
        size = self.sizes.at(number)
        first = self.sizes.before(number) * self._world + self._rank * size
        try:
            loaded = [self._load(position, skipped) for position in range(first, first + size)]
            return _fields(loaded, self._masks) | {"skipped": skipped}
        except DataError as error:  # travels as a value: torch would wrap a traceback around it
            return {"error": error}

    def _load(self, position: int, skipped: dict[str, str]) -> tuple[Sample, Augmented]:
        """Read and crop the sample at one position of the endless stream of epochs."""
        epoch, place = divmod(position, len(self._source))
        index = int(self._order(epoch)[place])
        sample = self._readable(index, skipped)
        # spawn_key, not a list as entropy: lists are zero-padded, so that (1, 2) equals (1, 2, 0)
        chance = np.random.SeedSequence(self._seed, spawn_key=(epoch, index))
        return sample, augment(sample, self._config, np.random.default_rng(chance))

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        if epoch not in self._orders:
            chance = np.random.SeedSequence(self._seed, spawn_key=(epoch,))
            self._orders.pop(epoch - 2, None)
            self._orders[epoch] = np.random.default_rng(chance).permutation(len(self._source))
        return self._orders[epoch]

    def _readable(self, index: int, skipped: dict[str, str]) -> Sample:
        """Read a sample, or the next one that can be read unless the data are strict."""
        for step in range(len(self._source)):
            candidate = (index + step) % len(self._source)
            try:
                return self._source[candidate]
            except DataError as error:
                if self._config.strict:
                    raise
                skipped[self._source.names[candidate]] = str(error)
        reason = next(iter(skipped.values()))
        raise DataError(
            f"none of the {len(self._source)} images can be read, for instance: {reason}"
        )


def _fields(loaded: list[tuple[Sample, Augmented]], masks: bool) -> dict[str, Any]:
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
        truth = np.stack([_mask_of(sample, crop) for sample, crop in loaded])
        fields["mask"] = torch.from_numpy(truth.astype(np.int64))
    return fields


def _mask_of(sample: Sample, crop: Augmented) -> npt.NDArray[np.uint8]:
    if crop.mask is None:
        raise DataError(f"'{sample.name}' has no mask, but this training needs one for every image")
    return crop.mask


def _unchanged(fields: Any) -> Any:
    """Stand-in for torch's collating, which would rebuild every field."""
    return fields


def _is_death(error: RuntimeError) -> bool:
    return str(error).startswith("DataLoader worker (pid")


def _start(loader: DataLoader[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Start the workers, but keep torch from raising their death at any line of the main thread.

    Its SIGCHLD handler does so wherever training happens to be; without it the death is found,
    within five seconds, where the batch is asked for.
    """
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGCHLD"):
        return iter(loader)
    before = signal.getsignal(signal.SIGCHLD)
    iterator = iter(loader)
    if before is not None:  # None: a handler that Python did not install and cannot put back
        signal.signal(signal.SIGCHLD, before)
    return iterator
