"""Turn pydantic's validation errors into one line per problem."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ValidationError

from tag2mask.config.keys import known_keys
from tag2mask.errors import did_you_mean, shorten

_LONGEST_VALUE = 120
"""Characters of a value, or of a key, that a message shows."""


def validation_errors(
    error: ValidationError, kind: type[BaseModel], where: str, prefix: str
) -> Iterator[str]:
    """Yield one line per problem: `where: a.b: what is wrong (got value)`.

    Args:
        error: Raised by `kind`.
        kind: The model that checked the values; its keys serve as hints.
        where: File or recipe, named first in each line.
        prefix: Put before each key, such as `stages.seg.`.
    """
    for problem in error.errors():
        path = [str(key) for key in problem["loc"]]
        dotted = shorten(prefix + ".".join(path), _LONGEST_VALUE)
        if problem["type"] == "extra_forbidden":
            known = known_keys(kind, path[:-1])
            hint = did_you_mean(path[-1], known)
            yield f"{where}: unknown key '{dotted}'.{hint} Known: {', '.join(known)}"
        elif problem["type"] == "missing":
            yield f"{where}: {dotted}: is missing"
        else:
            got = shorten(repr(problem["input"]), _LONGEST_VALUE)
            yield f"{where}: {dotted}: {problem['msg']} (got {got})"
