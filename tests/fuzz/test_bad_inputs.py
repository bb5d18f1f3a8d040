"""Thousands of broken files and lines: each gets its line and exit code 2, and changes nothing."""

import pytest
from tests.fuzz.bad_inputs import all_entries, fuzz
from tests.fuzz.fuzz_world import IMPORTS, build_fuzz_world

from tag2mask import plugins
from tag2mask.formats.base import Format


def check(root, monkeypatch, examples, start, least, *, trained):
    monkeypatch.chdir(root)
    build_fuzz_world(root, trained=trained)
    tally = fuzz(examples, start, root, enough=least)
    assert not tally.problems, "\n".join(tally.problems[:20])
    assert tally.refused.total() >= least


@pytest.mark.timeout(300)
def test_two_hundred_bad_inputs_get_one_line_each_and_change_nothing(tmp_path, monkeypatch):
    check(tmp_path, monkeypatch, 300, 1, 200, trained=False)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_two_thousand_bad_inputs_get_one_line_each_and_change_nothing(tmp_path, monkeypatch):
    check(tmp_path, monkeypatch, 3500, 2, 2000, trained=True)


def test_every_format_that_can_be_imported_is_fuzzed():
    readable = {
        name
        for name in plugins.available("formats")
        if "read" in vars(plugins.load("formats", name))
    }
    assert readable == set(IMPORTS)
    assert issubclass(plugins.load("formats", "coco"), Format)


def test_every_entry_has_a_name_of_its_own():
    names = [entry.name for entry in all_entries()]
    assert len(set(names)) == len(names) >= 20
