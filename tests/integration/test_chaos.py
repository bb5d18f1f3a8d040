"""The table of the trials of `make chaos`."""

from tests.chaos.run import trial_names
from tests.chaos.table import PAGE, page_with, read_results, table


def test_the_page_shows_the_results_that_are_recorded() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with(page, read_results()), "run python -m tests.chaos.table"


def test_the_table_counts_complete_runs_only() -> None:
    record = {"tried": 1200, "problems": [], "short": False, "kills": {"train": 1200}}
    rows = table({"kills": record, "exits": record | {"short": True}}).splitlines()
    assert sum("not yet run" in row for row in rows) == len(trial_names()) - 1
    assert any("| 1,200 (train 1200) | 0 | `python -m tests.chaos.run kills` |" in r for r in rows)
