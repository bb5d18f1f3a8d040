import numba
import pytest
import torch

from tag2mask.functional.compilation import compiled, on_torch_threads


def add_one(value):
    return value + 1


@pytest.mark.parametrize("options", [{}, {"parallel": True}, {"nogil": True}, {"exact": True}])
def test_options_reach_the_compiler(options):
    fast = compiled(**options)(add_one)
    for name in ("parallel", "nogil"):
        assert fast.targetoptions[name] == options.get(name, False)
    assert fast.targetoptions["fastmath"] != options.get("exact", False)


def test_compiled_function_computes_the_same():
    assert compiled(nogil=True)(add_one)(2) == 3


def test_compiles_without_a_cache_folder(monkeypatch):
    njit = numba.njit

    def reject_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", reject_cache)
    assert compiled()(add_one)(2) == 3


def test_function_runs_on_torchs_threads_and_numbas_count_is_restored(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    before, threads = numba.get_num_threads(), []
    on_torch_threads(lambda: threads.append(numba.get_num_threads()))
    assert threads == [1]
    assert numba.get_num_threads() == before


def test_number_of_threads_is_limited_by_numba(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    threads = []
    on_torch_threads(lambda: threads.append(numba.get_num_threads()))
    assert threads == [numba.config.NUMBA_NUM_THREADS]
