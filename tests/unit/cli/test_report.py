from pathlib import Path

import pytest

from tag2mask.cli import report
from tag2mask.errors import RunError


def test_page_is_written_and_named(monkeypatch, capsys):
    monkeypatch.setattr("tag2mask.report.page.write_report", lambda run: Path(run, "report.html"))
    report.run(["R"])
    assert capsys.readouterr().out == "report: R/report.html\n"


def test_missing_run_is_refused(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        report.run([str(tmp_path / "gone")])
