from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tag2mask.errors import LockedError
from tag2mask.inference.open_job import OpenJob
from tag2mask.inference.shards import Shard


class Waiting(OpenJob):
    """A job that does something while its folder is locked."""

    names = ("a", "b")

    def __init__(self, out: Path, meanwhile: Callable[[], object]) -> None:
        self.out = out
        self.meanwhile = meanwhile

    def read(self, name: str) -> None: ...

    def _write(self, shard: Shard | None, workers: int, on_image: object) -> object:
        return self.meanwhile()


def result_in_a_thread(job: OpenJob, shard: Shard | None) -> object:
    """Return what another worker on the same folder gets, or the error that it raises."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(job.write(shard))
        except LockedError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (None, None, True),
        (Shard(0, 2), Shard(0, 2), True),
        (Shard(0, 2), Shard(1, 2), False),
        (None, Shard(0, 2), True),
        (Shard(0, 2), None, True),
    ],
)
def test_only_different_shards_are_written_at_the_same_time(
    tmp_path: Path, first: Shard | None, second: Shard | None, refused: bool
) -> None:
    other = Waiting(tmp_path, lambda: "done")
    result = Waiting(tmp_path, lambda: result_in_a_thread(other, second)).write(first)
    assert isinstance(result, LockedError) == refused
    assert result_in_a_thread(other, second) == "done"  # the lock is free again
