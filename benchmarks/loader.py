"""Loader speed: augmented training batches against decoding alone, in the same run.

Run:     python benchmarks/loader.py [--data voc --root DIR] [--crop 320] [--seconds 10]
         [--json FILE]
Prints:  JSON lines. First milliseconds of processor time per image in one process (which other work
         on the machine hardly changes); then images/s with 1 and 2 workers, the median of rounds in
         which the two arrangements take turns, and their ratio.

Scenes are written to files first, so that both arrangements decode.
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
    """Decodes images and drops them: only their number of bytes crosses to the main process."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._source.reads_masks = False

    def __getitem__(self, index: int) -> int:
        return self._source[index % len(self._source)].image.nbytes


def images_per_second(images: Iterator[int], workers: int, seconds: float) -> float:
    """Count images for that long, after using up what was loaded ahead meanwhile."""
    for _ in range(2 * workers + 1):
        next(images)
    count, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds:
        count += next(images)
    return count / spent


def decode_only(source: Source, workers: int) -> Iterator[int]:
    """Yield how many images have been decoded."""
    loader = DataLoader(
        Decoder(source), batch_size=BATCH, sampler=itertools.count(), num_workers=workers
    )
    return (len(batch) for batch in loader)


def augmented(source: Source, config: DataConfig, workers: int) -> Iterator[int]:
    """Yield how many training crops have been delivered."""
    loaded = batches(source, config, batch_size=BATCH, seed=1, workers=workers)
    return (len(batch.name) for batch in loaded)


def processor_time(source: Source, config: DataConfig) -> dict[str, float]:
    """Milliseconds per image of decoding and of augmenting, over 200 images in this process."""
    source.reads_masks = False
    rng, images = np.random.default_rng(1), range(min(200, len(source)))
    start = time.process_time()
    samples = [source[index] for index in images]
    decoded = time.process_time()
    for sample in samples:
        augment(sample, config, rng)
    spent = {"decode_ms": decoded - start, "augment_ms": time.process_time() - decoded}
    return {name: round(1000 * total / len(images), 3) for name, total in spent.items()}


def throughput(
    source: Source, config: DataConfig, workers: int, seconds: float
) -> dict[str, float]:
    """Images/s of both arrangements, which take turns, and the ratio of their medians."""
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
    """Milliseconds per image as `make bench` shows them."""
    return [
        Row(
            f"training crops, {row['workers']:.0f} workers",
            1e3 / row["augmented_images_per_s"],
            "decoding alone",
            1e3 / row["decode_only_images_per_s"],
        )
        for row in measured
    ]


def main() -> None:
    """Measure, print and write as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="synthetic", choices=["synthetic", "voc", "folder"])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--crop", type=int, default=320)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name, root = asked.data, asked.root
        if name == "synthetic":
            name, root = "folder", Path(scratch)
            write_scenes(SyntheticConfig(count=200, val_count=0, size_px=384), root)
        kind = plugins.load("data", name)
        config = kind.Config(name=name, root=root, crop_px=asked.crop)
        source = kind(config, "train")
        setting = {"data": asked.data, "crop_px": asked.crop, "cores": os.cpu_count()}
        print(json.dumps(setting | processor_time(source, config)), flush=True)
        rows = []
        for workers in (1, 2):
            rows.append(throughput(source, config, workers, asked.seconds))
            print(json.dumps(setting | rows[-1]), flush=True)
        save(asked.json, comparisons(rows), setting=setting, rows=rows)


if __name__ == "__main__":
    main()
