import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tag2mask.cli import check
from tag2mask.cli.main import run
from tag2mask.data.checks.report import Advice, CheckReport, Part
from tag2mask.errors import DataError

REPORT = CheckReport(
    root=Path("D"),
    source="folder",
    images=1200,
    unreadable=1,
    negatives=3,
    classes={"cat": 600, "dog": 30},
    tags_per_image={0: 3, 1: 1197},
    pairs=(("cat", "dog", 12),),
    sizes=((10, 20), (30, 40), (50, 60)),
    masks=7,
    groups=5,
    parts={
        "train": Part(tuple("abcde"), {"cat": 550, "dog": 30}),
        "val": Part(("z",), {"cat": 50}),
    },
    advice=(Advice("typo", "warning", "see here"), Advice("mask", "note", "by the way")),
)


@pytest.fixture
def report_of(monkeypatch, tmp_path):
    """Make the check return the given report; return the arguments that it receives."""
    monkeypatch.chdir(tmp_path)
    calls = []

    def give(report: CheckReport) -> list[tuple[Path, bool]]:
        def check_folder(root: Path, *, strict: bool = False, progress=None) -> CheckReport:
            calls.append((root, strict))
            progress(1, 2)
            return report

        monkeypatch.setattr("tag2mask.data.validation.check_folder", check_folder)
        return calls

    return give


def test_summary_contains_every_count():
    text = "\n".join(check.summary_lines(REPORT))
    for words in (
        "D: 1,200 images, read as 'folder'",
        "train: 5 images (a, b, c and 2 more)",
        "val: 1 images (z)",
        "groups: 5; none is both",
        "3 with 0, 1,197 with 1",
        "3 show no class",
        "10 x 20, 30 x 40, 50 x 60",
        "masks: 7, unreadable images: 1",
        "most often together: cat + dog 12",
    ):
        assert words in text


def test_good_data_end_with_the_next_command(report_of, capsys):
    calls = report_of(REPORT)
    run(["check", "D", "--strict"])
    shown = capsys.readouterr().out
    assert calls == [(Path("D"), True)]
    assert "note: by the way\nwarning: see here" in shown
    assert "50%" in shown
    assert "550" in shown
    assert shown.splitlines()[-1] == "ready: tag2mask train D --out RUN"


def test_the_command_runs_as_pasted(report_of, capsys, tmp_path):
    report_of(REPORT)
    (tmp_path / "RUN").mkdir()
    run(["check", "my images"])
    line = capsys.readouterr().out.splitlines()[-1].removeprefix("ready: ")
    assert shlex.split(line) == ["tag2mask", "train", "my images", "--out", "RUN2"]


def test_each_problem_is_one_line(report_of, capsys):
    lines = tuple(Advice("layout", "problem", line) for line in ("one", "two"))
    report_of(CheckReport(root=Path("D"), source="folder", advice=lines))
    with pytest.raises(DataError, match=r"^one\ntwo$"):
        run(["check", "D", "--json", "out.json"])
    assert capsys.readouterr().out == "written: out.json\n"
    assert json.loads(Path("out.json").read_text())["can_train"] is False


def test_json_and_page_are_written(report_of, tmp_path):
    report_of(REPORT)
    run(["check", "D", "--json", "out.json", "--html", "page.html"])
    assert json.loads(Path("out.json").read_text(encoding="utf-8"))["classes"]["dog"] == 30
    assert "see here" in Path("page.html").read_text(encoding="utf-8")


def test_many_classes_are_shortened(report_of, capsys):
    classes = {f"class {number}": 100 - number for number in range(60)}
    report_of(CheckReport(Path("D"), "folder", images=100, classes=classes))
    run(["check", "D"])
    shown = capsys.readouterr().out
    assert "class 39" in shown
    assert "class 40" not in shown
    assert "and 20 more classes (all: --json FILE)" in shown


def test_a_run_is_no_data_set(tmp_path):
    (tmp_path / "weights").mkdir()
    assert not check.is_run(tmp_path)
    (tmp_path / "recipe.yaml").touch()
    assert check.is_run(tmp_path)


def test_a_run_in_front_checks_the_tags(monkeypatch, tmp_path):
    calls = []
    monkeypatch.setattr("tag2mask.cli.tag_errors.check_tags", lambda *words: calls.append(words))
    (tmp_path / "recipe.yaml").touch()
    (tmp_path / "seg" / "weights").mkdir(parents=True)  # a run with stages
    run(["check", str(tmp_path), "images", "--json", "out.json"])
    run(["check", str(tmp_path)])
    assert calls == [
        (str(tmp_path), Path("images"), Path("out.json")),
        (str(tmp_path), None, None),
    ]
    with pytest.raises(DataError, match="behind a run, give --json only"):
        run(["check", str(tmp_path), "--strict"])


def test_two_folders_without_a_run_are_rejected(tmp_path):
    with pytest.raises(DataError, match=r"is not a run; give one folder, or RUN DATA"):
        run(["check", str(tmp_path), "images"])


def test_names_with_markup_and_control_characters_are_shown_as_they_are(report_of, capsys):
    odd = replace(
        REPORT,
        classes={"[red]": 3, "[/]": 2},
        parts={"train": Part(("a\nerror: forged", "\x1b[2J"), {"[red]": 3})},
        advice=(Advice("typo", "warning", "tag '[/]' of a\nready: forged"),),
    )
    report_of(odd)
    run(["check", "D"])
    printed = capsys.readouterr().out
    assert "[red]" in printed
    assert "[/]" in printed
    assert r"a\nerror: forged, \x1b[2J" in printed
    assert "\x1b[2J" not in printed
    assert not [
        line for line in printed.splitlines() if line.startswith(("error", "ready: forged"))
    ]
