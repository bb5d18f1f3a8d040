from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.inference import ray_engine
from tag2mask.inference.parts import Parts, write_parts
from tag2mask.inference.shards import Shard


class Opened:
    """A job that remembers what it was asked to write."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def write(self, *given: object) -> str:
        self.calls.append(given)
        return "summary"


@pytest.mark.parametrize(
    ("parts", "shard"),
    [(Parts(), None), (Parts(shards=4, shard=3), Shard(3, 4)), (Parts("ray", shards=4), None)],
)
def test_a_shard_needs_a_number_and_a_count(parts: Parts, shard: Shard | None) -> None:
    assert parts.own_shard() == shard


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        (Parts(shards=4), "give both"),
        (Parts(shard=0), "give both"),
        (Parts(shards=4, shard=4), "numbered from 0"),
        (Parts("ray", shard=1), "Ray labels all shards"),
    ],
)
def test_contradictions_are_rejected(parts: Parts, reason: str) -> None:
    with pytest.raises(RunError, match=reason):
        parts.own_shard()


def test_the_local_engine_writes_the_shard_and_ray_all(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Opened()
    calls = []
    monkeypatch.setattr(ray_engine, "write_on_ray", lambda *given: calls.append(given))
    write_parts(Path(), opened, Parts(shards=2, shard=1, workers=3))
    assert opened.calls == [(Shard(1, 2), 3, None)]
    write_parts(Path("job"), opened, Parts("ray", shards=2, workers=3))
    assert calls == [(Path("job"), opened, 2, 3)]
