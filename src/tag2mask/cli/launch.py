"""What `torchrun` means for a command: it starts the same line in several processes."""

from __future__ import annotations

import os


def launched_processes() -> int:
    """Return how many processes the launcher started with this line; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if is_launched() else 1


def is_launched() -> bool:
    """Return whether a launcher such as `torchrun` started this process."""
    return all(os.environ.get(name, "").isdigit() for name in ("RANK", "WORLD_SIZE"))


def is_first() -> bool:
    """Return whether this process prints; the other ones of a launch print nothing."""
    return not is_launched() or os.environ["RANK"] == "0"


def own_shard(shards: int | None, shard: int | None) -> tuple[int | None, int | None]:
    """Return the shard that this process labels: as typed, else one for each of a launch.

    Args:
        shards: Value of --shards.
        shard: Value of --shard.
    """
    count = launched_processes()
    if count == 1 or shards is not None or shard is not None:
        return shards, shard
    return count, int(os.environ["RANK"])
