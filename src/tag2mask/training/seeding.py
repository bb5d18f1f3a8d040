"""Random number generators: one seed for all, and their state as JSON for resuming."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int, rank: int = 0) -> None:
    """Seed Python, NumPy and torch (all devices) from a run's seed and a process's rank.

    Deterministic algorithms are not enforced: they are slower, and on the CPU the same seed gives
    the same result without them.

    Args:
        seed: The run's seed.
        rank: Rank of the process. Each rank draws different numbers; otherwise dropout would be
            the same in all processes.
    """
    words = np.random.SeedSequence([seed, rank]).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))  # noqa: NPY002 third parties draw from the global generator
    torch.manual_seed(int(words[2]))


def rng_state() -> dict[str, Any]:
    """Return the state of every random number generator of this process as JSON values."""
    kind, key, position, has_gauss, gauss = np.random.get_state()  # noqa: NPY002 see seed_all
    return {
        "python": random.getstate(),
        "numpy": [kind, [int(word) for word in key], position, has_gauss, gauss],
        "torch": _to_hex(torch.get_rng_state()),
        "cuda": _to_hex(torch.cuda.get_rng_state()) if torch.cuda.is_available() else None,
    }


def set_rng_state(state: Mapping[str, Any]) -> None:
    """Restore a state that `rng_state` returned, even after a round trip through JSON."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, key, *rest = state["numpy"]
    np.random.set_state((kind, np.array(key, dtype=np.uint32), *rest))  # noqa: NPY002 see seed_all
    torch.set_rng_state(_from_hex(state["torch"]))
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


@contextmanager
def preserve_rng() -> Iterator[None]:
    """Restore the generators after the body, so that validation does not change a run."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


def _to_hex(state: torch.Tensor) -> str:
    """Encode the bytes of a generator state as text."""
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> torch.Tensor:
    """Decode what `_to_hex` returned."""
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
