"""Compilation of CPU loops with numba, and their number of threads."""

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
    """Compile a function at its first call and cache the result on disk if a folder is writable.

    The cache is invalidated only by changes of the function's own file. A compiled function must
    therefore not call one from another file.

    Args:
        parallel: Run `numba.prange` on threads. Keeps the interpreter lock, because one of numba's
            thread pools aborts when two threads enter it.
        nogil: Release the interpreter lock, so that Python threads can run the function in
            parallel.
        exact: Keep float operations as written; otherwise they may be reordered and fused.
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
        except RuntimeError:  # no writable cache folder: a read-only installation without a home
            result = numba.njit(**options)(function)
        fast: Callable[Arguments, Result] = result
        return fast

    return decorate


def on_torch_threads(function: Callable[..., None], *arrays: Any) -> None:
    """Run a compiled function on torch's number of threads, then restore both thread counts.

    The first parallel run of numba sets OpenMP's thread count, and with it torch's, to all cores.
    """
    torch_threads, numba_threads = torch.get_num_threads(), numba.get_num_threads()
    max_threads: int = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]  # set on import
    numba.set_num_threads(min(torch_threads, max_threads))
    try:
        function(*arrays)
    finally:
        numba.set_num_threads(numba_threads)
        if torch.get_num_threads() != torch_threads:
            torch.set_num_threads(torch_threads)
