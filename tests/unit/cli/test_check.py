from pathlib import Path

import pytest

from tag2mask.cli import check
from tag2mask.data.validation import CheckReport
from tag2mask.errors import DataError

FOUND = CheckReport(
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
    warnings=("look here",),
)


@pytest.fixture
def looked(monkeypatch):
    """Let the doctor find what the test wants; return how it was asked."""
    asked = []

    def give(found: CheckReport) -> list[tuple[Path, bool]]:
        def look(root: Path, *, strict: bool = False) -> CheckReport:
            asked.append((root, strict))
            return found

        monkeypatch.setattr("tag2mask.data.validation.check_folder", look)
        return asked

    return give


def test_overview_holds_every_count():
    text = "\n".join(check.overview(FOUND))
    for words in (
        "D: 1,200 images, read as 'folder'",
        "train 1,100, val 100",
        "3 with 0, 1,197 with 1",
        "3 show no class",
        "10 x 20, 30 x 40, 50 x 60",
        "masks: 7, unreadable images: 1",
    ):
        assert words in text


def test_good_data_end_with_the_next_command(looked, capsys):
    asked = looked(FOUND)
    check.run(["D", "--strict"])
    shown = capsys.readouterr().out
    assert asked == [(Path("D"), True)]
    assert "warning: look here" in shown
    assert "50%" in shown
    assert shown.splitlines()[-1].startswith("ready: tag2mask train RECIPE --data.name folder")


def test_problems_are_rejected_each_on_its_line(looked, capsys):
    looked(CheckReport(root=Path("D"), source="folder", problems=("one", "two")))
    with pytest.raises(DataError, match=r"^one\ntwo$"):
        check.run(["D"])
    assert capsys.readouterr().out == ""
