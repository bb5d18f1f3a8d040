"""Every "yes" of the comparison leads to a test that exists."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGE = (REPOSITORY / "docs" / "compare_tools.md").read_text(encoding="utf-8")
TESTS = re.findall(r"\]\(\.\./(tests/[^\s)]+)(?: \"(\w+)\")?\)", PAGE)


@pytest.mark.parametrize(("file", "name"), sorted(set(TESTS)))
def test_linked_test_exists(file, name):
    text = (REPOSITORY / file).read_text(encoding="utf-8")
    assert re.search(rf"^def {name or 'test_'}", text, re.MULTILINE)


def test_no_claim_stands_without_a_link():
    features = PAGE.split("## Features")[1].split("## What people asked")[0]
    claims = [line.split(" | ")[1] for line in features.splitlines() if line.startswith("| ")][1:]
    assert len(claims) > 25
    for claim in claims:
        assert claim.startswith(("[", "no ")), claim
