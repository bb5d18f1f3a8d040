import json
from pathlib import Path

from tag2mask.data.checks.report import Advice, CheckReport, Duplicates, Part, as_json

REPORT = CheckReport(
    root=Path("D"),
    source="folder",
    images=4,
    classes={"cat": 3},
    tags_per_image={0: 1, 1: 3},
    parts={"train": Part(("a", "b"), {"cat": 2})},
    duplicates=(Duplicates(("a", "b"), True, ("cat",), False, ("train",)),),
    advice=(Advice("typo", "warning", "one", ("a",)), Advice("other_files", "note", "two")),
    files={"a": Path("D/a.jpg")},
)


def test_lines_are_sorted_by_severity():
    assert (REPORT.problems, REPORT.warnings, REPORT.notes) == ((), ("one",), ("two",))
    assert REPORT.share("cat") == 0.75


def test_json_contains_the_same_facts():
    values = json.loads(json.dumps(as_json(REPORT, "tag2mask train D --out RUN")))
    assert values["can_train"] is True
    assert values["command"] == "tag2mask train D --out RUN"
    assert (values["root"], values["images"], values["classes"]) == ("D", 4, {"cat": 3})
    assert values["parts"]["train"] == {"names": ["a", "b"], "classes": {"cat": 2}}
    assert values["duplicates"][0]["names"] == ["a", "b"]
    assert values["advice"][0] == {
        "kind": "typo",
        "severity": "warning",
        "message": "one",
        "names": ["a"],
    }
    assert "files" not in values


def test_json_has_no_command_where_training_cannot_start():
    report = CheckReport(Path("D"), "folder", advice=(Advice("layout", "problem", "no"),))
    values = as_json(report, "tag2mask train D --out RUN")
    assert (values["can_train"], values["command"]) == (False, None)
