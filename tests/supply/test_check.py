"""Every locked package has an allowed license, and the check fails where one has not."""

import pytest
from supply.check import LOCK, is_allowed, locked_names, problems, read_list
from supply.pin import pin

NAMES = locked_names(LOCK.read_text(encoding="utf-8"))
LISTED = read_list()


def test_every_locked_package_has_an_allowed_license():
    assert list(problems(NAMES, LISTED)) == []
    assert len(NAMES) > 80


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("MIT OR GPL-3.0-only", True),
        ("MIT AND GPL-3.0-only", False),
        ("(MIT OR GPL-3.0-only) AND BSD-2-Clause", True),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("GPL-3.0-only", False),
        ("AGPL-3.0-or-later", False),
        ("unknown", False),
        ("", False),
    ],
)
def test_an_expression_is_allowed_if_one_can_choose_allowed_licenses(expression, allowed):
    assert is_allowed(expression) is allowed


def test_new_forbidden_and_changed_packages_are_named():
    listed = {**LISTED, "numpy": "GPL-3.0-only", "rich": "BSD-3-Clause"}
    del listed["torch"]
    found = "\n".join(problems(NAMES, listed))
    assert "torch: is locked, but not in licenses.csv" in found
    assert "numpy: license GPL-3.0-only is not allowed" in found
    assert "rich: states MIT, the list says BSD-3-Clause" in found
    assert len(found.splitlines()) == 3


def test_a_pin_changes_only_the_named_weights():
    text = "backbone: {name: mit, weights: org/net}\n# weights: org/net-large\n  weights: org/net\n"
    assert pin(text, "org/net", "f00") == (
        "backbone: {name: mit, weights: org/net@f00}\n# weights: org/net-large\n"
        "  weights: org/net@f00\n"
    )
