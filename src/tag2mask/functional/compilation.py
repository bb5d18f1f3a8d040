"""How numba compiles the loops for the CPU: the same options everywhere, cached on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(
    *, parallel: bool = False, nogil: bool = False, exact: bool = False
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """Compile at the first call, once per machine where a cache folder can be written.

    The cache watches the file of the function only: a compiled function must not call one of
    another file, or it would outlive a change there.

    Args:
        parallel: `numba.prange` uses threads. The interpreter lock must then be kept: one of
            numba's thread pools aborts when two threads enter it.
        nogil: Release the interpreter lock, so that Python threads can run the function at once.
        exact: Round every float operation as written; else they may be reordered and fused.
    """
    options: dict[str, Any] = {
        "parallel": parallel,
        "nogil": nogil,
        "fastmath": not exact,
        "error_model": "numpy",
    }

    def decorate(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        try:
            result = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # no folder for the cache: a read-only installation without a home
            result = numba.njit(**options)(function)
        fast: Callable[Arguments, Result] = result
        return fast

    return decorate
