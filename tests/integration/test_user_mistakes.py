"""What people are likely to type wrong, and the exact lines that the program answers.

`user_mistakes.yaml` is the list. After an intended change of a message,
`python -m tests.integration.test_user_mistakes` writes the list anew; read the difference.
"""

import contextlib
import io
import os
import shlex
import tempfile
from pathlib import Path

import pytest
import yaml
from tests.integration.user_world import build_world

from tag2mask import plugins
from tag2mask.cli.main import COMMANDS, main

LIST = Path(__file__).with_name("user_mistakes.yaml")
MISTAKES = yaml.safe_load(LIST.read_text(encoding="utf-8"))
"""Typed line -> the lines on standard error."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    build_world(root)
    return root


def files_of(root: Path) -> dict[Path, int]:
    """Every file and folder, with the time at which it was written."""
    return {path: path.stat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_gets_its_line_and_changes_nothing(line, world, monkeypatch, capsys):
    monkeypatch.chdir(world)
    # Other tests of this process define methods, which messages would list as known.
    monkeypatch.setattr(plugins, "_defined_in_program", lambda package: {})
    before = files_of(world)
    assert main(shlex.split(line)) == 2
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"error: {problem}" for problem in MISTAKES[line]]
    assert files_of(world) == before


def test_the_list_is_long_and_covers_the_commands():
    assert len(MISTAKES) >= 60
    assert {shlex.split(line)[0] for line in MISTAKES} >= set(COMMANDS)


def rewrite_list() -> None:
    """Write the list with what the program answers now."""
    with tempfile.TemporaryDirectory() as folder:
        build_world(Path(folder))
        os.chdir(folder)
        answers = {}
        for line in MISTAKES:
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
                code = main(shlex.split(line))
            problems = [one.removeprefix("error: ") for one in errors.getvalue().splitlines()]
            answers[line] = problems if code == 2 else [f"EXIT CODE {code}", *problems]
    LIST.write_text(
        yaml.safe_dump(answers, sort_keys=False, allow_unicode=True, width=1000), encoding="utf-8"
    )


if __name__ == "__main__":
    rewrite_list()
