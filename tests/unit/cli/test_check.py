from pathlib import Path

import pytest

from tag2mask.cli import check
from tag2mask.cli.main import run
from tag2mask.data.validation import CheckReport
from tag2mask.errors import DataError

REPORT = CheckReport(
    root=Path("D"),
    source="folder",
    images=1200,
    unreadable=1,
    negatives=3,
    classes={"cat": 600},
    tags_per_image={0: 3, 1: 1197},
    sizes=((10, 20), (30, 40), (50, 60)),
    masks=7,
    parts={"train": 1100, "val": 100},
    warnings=("see here",),
)


@pytest.fixture
def report_of(monkeypatch):
    """Make the check return the given report; return the arguments that it receives."""
    calls = []

    def give(report: CheckReport) -> list[tuple[Path, bool]]:
        def check_folder(root: Path, *, strict: bool = False) -> CheckReport:
            calls.append((root, strict))
            return report

        monkeypatch.setattr("tag2mask.data.validation.check_folder", check_folder)
        return calls

    return give


def test_summary_contains_every_count():
    text = "\n".join(check.summary_lines(REPORT))
    for words in (
        "D: 1,200 images, read as 'folder'",
        "train 1,100, val 100",
        "3 with 0, 1,197 with 1",
        "3 show no class",
        "10 x 20, 30 x 40, 50 x 60",
        "masks: 7, unreadable images: 1",
    ):
        assert words in text


def test_good_data_end_with_the_next_command(report_of, capsys):
    calls = report_of(REPORT)
    run(["check", "D", "--strict"])
    shown = capsys.readouterr().out
    assert calls == [(Path("D"), True)]
    assert "warning: see here" in shown
    assert "50%" in shown
    last = shown.splitlines()[-1]
    assert last == "ready: tag2mask train RECIPE data.name=folder data.root=D --out RUN"


def test_each_problem_is_one_line(report_of, capsys):
    report_of(CheckReport(root=Path("D"), source="folder", problems=("one", "two")))
    with pytest.raises(DataError, match=r"^one\ntwo$"):
        run(["check", "D"])
    assert capsys.readouterr().out == ""


def test_keys_of_coco_name_the_training_split():
    parts = {"val2014": 5, "train2014": 9}
    report = CheckReport(root=Path("D"), source="coco", images=14, parts=parts)
    expected = ["data.name=coco", "data.root=D", "data.split=train2014"]
    assert check.training_keys(report, Path("D")) == expected


def test_a_run_in_front_checks_the_tags(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr(
        "tag2mask.cli.tag_errors.check_tags", lambda run, data: calls.append((run, data))
    )
    (tmp_path / "recipe.yaml").write_text("", encoding="utf-8")
    run(["check", str(tmp_path), "images"])
    run(["check", str(tmp_path)])
    assert calls == [(str(tmp_path), Path("images")), (str(tmp_path), None)]


def test_two_folders_without_a_run_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"is not a run .* give one folder, or RUN DATA"):
        run(["check", str(tmp_path), "images"])
