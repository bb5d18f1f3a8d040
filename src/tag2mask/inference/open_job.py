"""A labeling run with its network and images, ready to do any number of its shards."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

from tag2mask.inference.mask_summary import MaskSummary, summarize_masks
from tag2mask.inference.shards import Shard, merge_shards
from tag2mask.inference.writer import OnImage, WriteSummary
from tag2mask.io.locks import folder_lock
from tag2mask.types import Image


class OpenJob(ABC):
    """A job with its network, ready to do any number of its shards."""

    out: Path
    names: Sequence[str]
    """Images of all shards, in order."""
    inside = Path()
    """Folder of the masks, relative to that of the job."""

    @abstractmethod
    def read(self, name: str) -> Image:
        """Decode one image.

        Raises:
            DataError: If it cannot be read.
        """

    def write(
        self, shard: Shard | None = None, workers: int = 1, on_image: OnImage | None = None
    ) -> WriteSummary:
        """Write the masks of one shard, or of all images; finished ones are skipped.

        Raises:
            LockedError: If another process writes the same masks.
            RunError: If the folder contains masks made with different settings.
        """
        with folder_lock(self.out, "" if shard is None else shard.title):
            return self._write(shard, workers, on_image)

    @abstractmethod
    def _write(self, shard: Shard | None, workers: int, on_image: OnImage | None) -> WriteSummary:
        """Write masks into a locked folder."""

    def merge(self, count: int) -> list[int]:
        """Merge the records of `count` shards if all are finished; return the unfinished ones."""
        return merge_shards(self.out, self.names, count, self.inside)

    def summarize(self) -> MaskSummary:
        """Summarize the masks of all shards."""
        return summarize_masks(self.out, self.inside)
