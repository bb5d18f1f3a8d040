import errno
import sys
from types import ModuleType

import pytest

from tag2mask.cli.main import VERBS, main, overview
from tag2mask.errors import DataError


def verb_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    module = ModuleType("tag2mask.cli.check")

    def run(_: list[str]) -> None:
        raise error

    module.run = run
    monkeypatch.setitem(sys.modules, "tag2mask.cli.check", module)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_overview_names_every_command_with_a_summary(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == overview()
    for verb in VERBS:
        line = next(line for line in shown.splitlines() if line.startswith(f"  {verb} "))
        assert len(line.split()) > 3


def test_version_is_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tag2mask 0.")


def test_unknown_command_gets_a_hint(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: unknown command 'trian'. Did you mean 'train'? Known: demo, "
    )


def test_each_problem_of_a_user_is_a_line_and_exit_code_2(monkeypatch, capsys):
    verb_that_raises(monkeypatch, DataError("a: gone\nb: gone too"))
    assert main(["check", "x"]) == 2
    assert capsys.readouterr().err == "error: a: gone\nerror: b: gone too\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")],
)
def test_what_the_disk_refuses_is_one_line(monkeypatch, capsys, number, text):
    verb_that_raises(monkeypatch, OSError(number, text, "/full/x.png"))
    assert main(["check", "x"]) == 2
    assert capsys.readouterr().err == f"error: /full/x.png: {text}\n"


def test_interrupt_has_its_own_exit_code(monkeypatch, capsys):
    verb_that_raises(monkeypatch, KeyboardInterrupt())
    assert main(["check", "x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ENOENT, "gone", "x")])
def test_a_defect_of_the_program_is_not_hidden(monkeypatch, error):
    verb_that_raises(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["check", "x"])


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_explains_itself(verb, capsys):
    assert main([verb, "--help"]) == 0
    shown = capsys.readouterr()
    assert f"usage: tag2mask {verb}" in shown.out
    assert shown.err == ""
