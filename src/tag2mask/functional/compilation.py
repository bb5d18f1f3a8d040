"""How numba compiles the loops for the CPU, and on how many threads they run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numba
import torch

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


def on_torch_threads(function: Callable[..., None], *arrays: Any) -> None:
    """Run a compiled function on torch's number of threads; leave both libraries as they were.

    numba's first parallel run sets OpenMP's thread count, and with it torch's, to all cores.
    """
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    most: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set when imported
    numba.set_num_threads(min(torch_threads, most))
    try:
        function(*arrays)
    finally:
        numba.set_num_threads(numba_threads)
        if torch.get_num_threads() != torch_threads:
            torch.set_num_threads(torch_threads)
