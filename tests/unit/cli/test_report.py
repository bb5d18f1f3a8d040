from pathlib import Path

import pytest

from tag2mask.cli.main import run
from tag2mask.errors import RunError, Tag2MaskError


def test_page_is_written_and_named(monkeypatch, capsys):
    asked = []

    def write(folder, query, masks, *, truth, seed):
        asked.append((query, masks, truth, seed))
        return Path(folder, "report.html")

    monkeypatch.setattr("tag2mask.report.page.write_report", write)
    run(["report", "R"])
    run(["report", "R", "--query", "0.25", "1", "--masks", "M", "--truth", "T", "--seed", "7"])
    assert capsys.readouterr().out == "report: R/report.html\n" * 2
    assert asked == [
        (None, None, None, 1),
        ((0.25, 1.0), Path("M"), Path("T"), 7),
    ]


def test_query_takes_two_numbers():
    with pytest.raises(Tag2MaskError, match="--query: needs 2 values"):
        run(["report", "R", "--query", "0.25"])


def test_missing_run_is_rejected(tmp_path):
    with pytest.raises(RunError, match="no such run folder"):
        run(["report", str(tmp_path / "gone")])
