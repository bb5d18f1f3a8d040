"""The short form of `make chaos`: a few kills, locked folders, threads and signals each time."""

from pathlib import Path

import pytest
from tests.chaos.run import run_trials, trial_names
from tests.chaos.table import PAGE, page_with, read_results, table


def test_the_page_shows_the_results_that_are_recorded() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == page_with(page, read_results()), "run python -m tests.chaos.table"


def test_the_table_counts_complete_runs_only() -> None:
    record = {"tried": 1200, "problems": [], "short": False, "kills": {"train": 1200}}
    rows = table({"kills": record, "exits": record | {"short": True}}).splitlines()
    assert sum("not yet run" in row for row in rows) == len(trial_names()) - 1
    assert any("| 1,200 (train 1200) | 0 | `python -m tests.chaos.run kills` |" in r for r in rows)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
@pytest.mark.parametrize("name", trial_names())
def test_a_few_failures_of_each_kind_do_no_harm(name: str, tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    assert run_trials([name], short=True, seed=1, folder=tmp_path, path=path)
    assert path.is_file()
