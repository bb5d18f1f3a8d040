import sys

import pytest

from tag2mask.lazy import attach, public_names

SOURCE = """
if TYPE_CHECKING:
    from fractions import Fraction as Fraction
    from decimal import Decimal  # private: without `as`
else:
    from tag2mask.lazy import attach as attach
"""


def test_only_exported_names_of_the_type_checking_block_are_public():
    assert public_names(SOURCE) == {"Fraction": "fractions"}


def test_a_package_imports_a_name_when_it_is_first_used(tmp_path, monkeypatch):
    (tmp_path / "lazy_package").mkdir()
    (tmp_path / "lazy_package" / "__init__.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n"
        "    from lazy_package.inner import value as value\n"
        "else:\n"
        "    from tag2mask.lazy import attach\n"
        "    __getattr__, __dir__, __all__ = attach(__name__)\n"
    )
    (tmp_path / "lazy_package" / "inner.py").write_text("value = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    import lazy_package

    assert "lazy_package.inner" not in sys.modules
    assert dir(lazy_package) == lazy_package.__all__ == ["value"]
    assert lazy_package.value == 7
    with pytest.raises(AttributeError, match="module 'lazy_package' has no attribute 'other'"):
        lazy_package.other  # noqa: B018 -- the test looks it up
    get_attribute, _, _ = attach("lazy_package")
    assert get_attribute("value") == 7
