from pathlib import Path

import pytest

from tag2mask.cli import report
from tag2mask.errors import RunError, Tag2MaskError


def test_page_is_written_and_named(monkeypatch, capsys):
    asked = []

    def write(run, query):
        asked.append(query)
        return Path(run, "report.html")

    monkeypatch.setattr("tag2mask.report.page.write_report", write)
    report.run(["R"])
    report.run(["R", "--query", "0.25", "1"])
    assert capsys.readouterr().out == "report: R/report.html\n" * 2
    assert asked == [None, (0.25, 1.0)]


def test_query_takes_two_numbers():
    with pytest.raises(Tag2MaskError, match="query"):
        report.run(["R", "--query", "0.25"])


def test_missing_run_is_rejected(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        report.run([str(tmp_path / "gone")])
