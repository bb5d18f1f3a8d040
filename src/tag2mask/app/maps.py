"""Make the masks of the page: the network once per image, then thresholds at will.

The maps of recent images stay in memory, so that a slider costs one refinement. The network and the
refiners have a thread each: a slider never waits behind the network of another visitor.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tag2mask import plugins
from tag2mask.app.limits import MIB, Limits
from tag2mask.app.messages import MaskSettings
from tag2mask.app.refusals import RefusedError, TooLargeError
from tag2mask.data.base import Source
from tag2mask.inference.inputs import tag_row
from tag2mask.inference.kept_maps import KeptMaps, RemadeMask, keep_maps, remake_mask
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.images import image_size, read_image
from tag2mask.types import Image

NO_REFINER = "none"
_SEGMENTERS = 64
"""Combinations of settings that are kept ready; each is a recipe and a refiner, no network."""


class MapCache:
    """The maps of the most recently used images, up to a number of bytes; for several threads."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._kept: OrderedDict[Hashable, KeptMaps] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0
        """Memory that the maps hold."""

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: Hashable) -> KeptMaps | None:
        """Return the maps of an image; None if they are not kept."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, maps: KeptMaps) -> None:
        """Keep the maps of an image, and drop those that were not used for longest."""
        with self._lock:
            if key in self._kept:
                self.nbytes -= self._kept.pop(key).nbytes
            self._kept[key] = maps
            self.nbytes += maps.nbytes
            while self.nbytes > self._most and len(self._kept) > 1:
                self.nbytes -= self._kept.popitem(last=False)[1].nbytes


class MaskMaker:
    """Makes the masks of the page with one network; its methods may be called from any thread."""

    def __init__(self, segmenter: Segmenter, limits: Limits, source: Source | None = None) -> None:
        """Prepare a network.

        Args:
            segmenter: The run.
            limits: Memory for maps, largest image.
            source: Tagged images, for methods that compare an image with others.
        """
        self.segmenter = segmenter if source is None else segmenter.with_dataset(source)
        self.class_names = segmenter.class_names
        self.refiners = (NO_REFINER, *plugins.available("refiners"))
        """Names that `MaskSettings.refiner` accepts."""
        self.network_runs = 0
        """Images that went through the network."""
        self._limits = limits
        self._cache = MapCache(limits.cache_mib * MIB)
        self._network = ThreadPoolExecutor(1, "network")
        self._refinement = ThreadPoolExecutor(1, "refinement")
        self._with_settings = lru_cache(_SEGMENTERS)(self._segmenter_with)

    @property
    def refiner(self) -> str:
        """Name of the run's own refiner."""
        refiner = self.segmenter.recipe.refiner
        return refiner.name if refiner and self.segmenter.config.refine else NO_REFINER

    @property
    def background(self) -> float | None:
        """Background score of the run; None if each image has its own."""
        config = self.segmenter.config
        return config.background_score if config.background_rule == "fixed" else None

    def read(self, path: Path) -> Image:
        """Decode an image of the page.

        Raises:
            TooLargeError: If it has more pixels than the page takes.
            DataError: If it cannot be read.
        """
        height, width = image_size(path)
        if height * width > self._limits.image_px:
            raise TooLargeError(
                f"{path.name}: {width}x{height} px is too large for the page (at most "
                f"{self._limits.image_mpx} million pixels); shrink the image"
            )
        return read_image(path)

    def make(
        self, key: str, name: str, path: Path, settings: MaskSettings, *, keep: bool = True
    ) -> RemadeMask:
        """Make the mask of an image; waits for its turn.

        Args:
            key: Identifies the image.
            name: Name of the image, for methods that draw random numbers while labeling.
            path: The file.
            settings: How the mask is made.
            keep: Keep the maps in memory for the next call.

        Raises:
            DataError: If the image cannot be read or a tag is unknown.
            RecipeError: If a setting is out of range.
            RefusedError: If the run needs tags, and the settings have none.
        """
        tags = None if settings.tags is None else tag_row(settings.tags, self.class_names)
        chosen = self._with_settings(
            settings.background, settings.class_threshold, settings.refiner
        )
        reads_tags = self.segmenter.method.works_while_labeling
        if reads_tags and tags is None:
            raise RefusedError("this run reads the tags of an image; choose its classes first")
        given = tags if reads_tags else None
        full_key = (key, None if given is None else given.tobytes())
        maps = self._cache.get(full_key)
        if maps is None:
            job = self._network.submit(self._run_network, full_key, name, path, given, keep)
            maps = job.result()
        return self._refinement.submit(remake_mask, chosen, maps, tags).result()

    def close(self) -> None:
        """End the threads; waiting work is dropped."""
        for pool in (self._network, self._refinement):
            pool.shutdown(wait=True, cancel_futures=True)

    def _segmenter_with(
        self, background: float | None, class_threshold: float | None, refiner: str | None
    ) -> Segmenter:
        if refiner is not None and refiner not in self.refiners:
            raise RefusedError(f"unknown refiner '{refiner}'. Known: {', '.join(self.refiners)}")
        return self.segmenter.with_settings(
            background=background, class_threshold=class_threshold, refiner=refiner
        )

    def _run_network(
        self,
        key: Hashable,
        name: str,
        path: Path,
        tags: npt.NDArray[np.uint8] | None,
        keep: bool,
    ) -> KeptMaps:
        """Return the maps of an image; runs in the thread of the network."""
        maps = self._cache.get(key)  # another visitor may have asked for the same image
        if maps is not None:
            return maps
        maps = keep_maps(self.segmenter, self.read(path), tags, name)
        self.network_runs += 1
        if keep:
            self._cache.put(key, maps)
        return maps
