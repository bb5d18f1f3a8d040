"""Do a labeling job: all of it here, one of its shards, or all shards on a Ray cluster."""

from __future__ import annotations

from typing import Literal, NamedTuple

from tag2mask.errors import RunError
from tag2mask.inference.jobs import Job
from tag2mask.inference.open_job import OpenJob
from tag2mask.inference.shards import Shard
from tag2mask.inference.writer import OnImage, WriteSummary

Engine = Literal["local", "ray"]
"""Where masks are made: on this machine, or by the actors of a Ray cluster."""


class Parts(NamedTuple):
    """How a job is divided, and what of it is done here."""

    engine: Engine = "local"
    shards: int | None = None
    """Number of shards; None: the job is not divided, on Ray a number that suits it."""
    shard: int | None = None
    """The shard to do here."""
    workers: int = 1
    """Processes that make masks, on Ray actors."""

    def own_shard(self) -> Shard | None:
        """Return the shard to do here; None: all.

        Raises:
            RunError: If the values contradict each other.
        """
        if self.engine == "ray":
            if self.shard is not None:
                raise RunError("shard: Ray labels all shards; leave out shard or the engine ray")
            return None
        if (self.shards is None) != (self.shard is None):
            raise RunError(
                "shards, shard: give both, such as --shards 16 --shard 0 (Python: shards=16, "
                "shard=0)"
            )
        if self.shards is None or self.shard is None:
            return None
        return Shard(self.shard, self.shards)


def write_parts(
    job: Job, opened: OpenJob, parts: Parts, on_image: OnImage | None = None
) -> WriteSummary:
    """Write the masks of a job, or of one shard.

    Args:
        job: What to label.
        opened: The same, with its images.
        parts: How it is divided.
        on_image: Called after each image; not on Ray.

    Raises:
        RunError: If `parts` contradict each other, or the folder contains other masks.
        MissingExtraError: If Ray is not installed.
    """
    shard = parts.own_shard()
    if parts.engine == "ray":
        from tag2mask.inference.ray_engine import write_on_ray

        return write_on_ray(job, opened, parts.shards, parts.workers)
    return opened.write(shard, parts.workers, on_image)
