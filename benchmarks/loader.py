"""Time the loading of augmented training batches against decoding alone.

Prints JSON lines: first the processor time per image in one process, in milliseconds, which other
work on the machine hardly changes; then images/s with 1 and 2 workers and their ratio. Rates are
medians over rounds in which loading and decoding take turns.

Synthetic scenes are written to files first, so that both decode files.

Run: python benchmarks/loader.py [--data voc --root DIR] [--crop 320] [--seconds 10] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch.utils.data import DataLoader, Dataset

from row import Row, save
from tag2mask import plugins
from tag2mask.config.schema import DataConfig
from tag2mask.data.base import Source
from tag2mask.data.loader import batches
from tag2mask.data.synthetic import SyntheticConfig, write_scenes
from tag2mask.data.transforms import augment

BATCH = 8
ROUNDS = 5


class Decoder(Dataset[int]):
    """Decode images and drop them; only their number of bytes reaches the main process."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._source.reads_masks = False

    def __getitem__(self, index: int) -> int:
        return self._source[index % len(self._source)].image.nbytes


def images_per_second(images: Iterator[int], workers: int, seconds: float) -> float:
    """Measure a rate for some seconds, after using up the batches that were loaded ahead."""
    for _ in range(2 * workers + 1):
        next(images)
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        count += next(images)
    return count / elapsed


def decode_only(source: Source, workers: int) -> Iterator[int]:
    """Yield the number of images of each decoded batch."""
    loader = DataLoader(
        Decoder(source), batch_size=BATCH, sampler=itertools.count(), num_workers=workers
    )
    return (len(batch) for batch in loader)


def augmented(source: Source, config: DataConfig, workers: int) -> Iterator[int]:
    """Yield the number of training crops of each loaded batch."""
    loader = batches(source, config, batch_size=BATCH, seed=1, workers=workers)
    return (len(batch.name) for batch in loader)


def processor_time(source: Source, config: DataConfig) -> dict[str, float]:
    """Measure milliseconds per image of decoding and of augmenting 200 images in this process."""
    source.reads_masks = False
    rng, images = np.random.default_rng(1), range(min(200, len(source)))
    start = time.process_time()
    samples = [source[index] for index in images]
    decoded = time.process_time()
    for sample in samples:
        augment(sample, config, rng)
    times = {"decode_ms": decoded - start, "augment_ms": time.process_time() - decoded}
    return {name: round(1000 * total / len(images), 3) for name, total in times.items()}


def throughput(
    source: Source, config: DataConfig, workers: int, seconds: float
) -> dict[str, float]:
    """Measure images/s of loading and of decoding, in turn, and the ratio of their medians."""
    streams = {
        "decode_only_images_per_s": decode_only(source, workers),
        "augmented_images_per_s": augmented(source, config, workers),
    }
    rounds = [
        [images_per_second(stream, workers, seconds / ROUNDS) for stream in streams.values()]
        for _ in range(ROUNDS)
    ]
    decoded, loaded = (statistics.median(column) for column in zip(*rounds, strict=True))
    rates = dict(zip(streams, (round(decoded, 1), round(loaded, 1)), strict=True))
    return {"workers": workers, **rates, "ratio": round(loaded / decoded, 2)}


def comparisons(measured: Sequence[Mapping[str, float]]) -> list[Row]:
    """Convert rates to milliseconds per image for `make bench`."""
    return [
        Row(
            f"training crops, workers: {row['workers']:.0f}",
            1e3 / row["augmented_images_per_s"],
            "decoding alone",
            1e3 / row["decode_only_images_per_s"],
        )
        for row in measured
    ]


def main() -> None:
    """Print the measurements and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic", choices=["synthetic", "voc", "folder"])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name, root = args.data, args.root
        if name == "synthetic":
            name, root = "folder", Path(scratch)
            write_scenes(SyntheticConfig(count=200, val_count=0, size_px=384), root)
        kind = plugins.load("data", name)
        config = kind.Config(name=name, root=root, crop_px=args.crop)
        source = kind(config, "train")
        settings = {"data": args.data, "crop_px": args.crop, "cores": os.cpu_count()}
        print(json.dumps(settings | processor_time(source, config)), flush=True)
        rows = []
        for workers in (1, 2):
            rows.append(throughput(source, config, workers, args.seconds))
            print(json.dumps(settings | rows[-1]), flush=True)
        save(args.json, comparisons(rows), settings=settings, rows=rows)


if __name__ == "__main__":
    main()
