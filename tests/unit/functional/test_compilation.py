import numba
import pytest

from tag2mask.functional.compilation import compiled


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

    def refuse_cache(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", refuse_cache)
    assert compiled()(add_one)(2) == 3
