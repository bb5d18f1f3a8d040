"""What one kind of failure did: how often it was tried, and every departure from what must hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Trial(NamedTuple):
    """How much to try, and where."""

    short: bool
    """A minute at most in all, for every commit; otherwise the numbers of docs/reliability.md."""
    seed: int
    folder: Path
    """New and empty."""
    notify: Callable[[str], object]

    def times(self, full: int, short: int) -> int:
        """Return how often to try something."""
        return short if self.short else full


@dataclass
class Outcome:
    """The result of one kind of failure."""

    tried: int = 0
    problems: list[str] = field(default_factory=list)
    """One line for each trial that did not end as it must."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Further numbers for the table."""

    def values(self) -> Mapping[str, Any]:
        """Return plain values for JSON."""
        return {"tried": self.tried, "problems": self.problems, **self.facts}
