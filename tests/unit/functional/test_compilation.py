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


def test_a_compiled_function_computes_the_same():
    assert compiled(nogil=True)(add_one)(2) == 3


def test_without_a_folder_for_the_cache_it_still_compiles(monkeypatch):
    njit = numba.njit

    def reject_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", reject_cache)
    assert compiled()(add_one)(2) == 3


def test_runs_on_the_threads_of_torch_and_gives_numba_its_own_back(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    before, seen = numba.get_num_threads(), []
    on_torch_threads(lambda: seen.append(numba.get_num_threads()))
    assert seen == [1]
    assert numba.get_num_threads() == before


def test_more_torch_threads_than_numba_has_are_capped(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 10_000)
    seen = []
    on_torch_threads(lambda: seen.append(numba.get_num_threads()))
    assert seen == [numba.config.NUMBA_NUM_THREADS]
