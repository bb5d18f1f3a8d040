import errno
import os
import signal
import time
from pathlib import Path

import pytest
import torch

import tag2mask.cli
from tag2mask.cli.main import COMMANDS, exit_code, main, overview
from tag2mask.errors import DataError, LostProcessError, StoppedError


def command_that_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def check_folder(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("tag2mask.data.validation.check_folder", check_folder)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_overview_names_every_command_with_a_summary(arguments, capsys):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == overview()
    for name in COMMANDS:
        line = next(line for line in shown.splitlines() if line.startswith(f"  {name} "))
        assert len(line.split()) > 3


def test_version_is_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("tag2mask 0.")


def test_unknown_command_gets_a_hint(capsys):
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.startswith(
        "error: unknown command 'trian'. Did you mean 'train'? Known: demo, "
    )


def test_each_problem_is_one_line_and_exit_code_2(monkeypatch, capsys):
    command_that_raises(monkeypatch, DataError("a: gone", "b: gone too"))
    assert main(["check", "x"]) == 2
    assert capsys.readouterr().err == "error: a: gone\nerror: b: gone too\n"


@pytest.mark.parametrize(
    ("number", "text"),
    [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")],
)
def test_error_of_the_disk_is_one_line(monkeypatch, capsys, number, text):
    command_that_raises(monkeypatch, OSError(number, text, "/full/x.png"))
    assert main(["check", "x"]) == 2
    assert capsys.readouterr().err == f"error: /full/x.png: {text}\n"


def out_of_memory_of_a_gpu() -> RuntimeError:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        out_of_memory_of_a_gpu(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_memory_that_runs_out_is_one_line(monkeypatch, capsys, error):
    command_that_raises(monkeypatch, error)
    assert main(["check", "x"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: memory ran out; in training lower optim.batch_size")


def test_a_lost_process_has_the_exit_code_by_which_schedulers_try_again(monkeypatch, capsys):
    command_that_raises(monkeypatch, LostProcessError("a worker process was killed"))
    assert main(["check", "x"]) == 75 == os.EX_TEMPFAIL
    assert capsys.readouterr().err == "error: a worker process was killed\n"


def test_interrupt_has_its_own_exit_code(monkeypatch, capsys):
    command_that_raises(monkeypatch, KeyboardInterrupt())
    assert main(["check", "x"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_a_signal_stopped_has_the_exit_code_of_the_signal(monkeypatch, capsys, number):
    command_that_raises(monkeypatch, StoppedError("stopped at step 3; resume with: x", number))
    assert main(["check", "x"]) == {signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert capsys.readouterr().err == "stopped at step 3; resume with: x\n"


def test_sigterm_ends_a_job_in_order_with_its_own_exit_code(capsys):
    before = signal.getsignal(signal.SIGTERM)
    ended = []

    def job():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(30)
        finally:
            ended.append("in order")

    assert exit_code(job) == 143
    assert (ended, capsys.readouterr().err) == (["in order"], "terminated\n")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), OSError(errno.ENOENT, "gone", "x"), RuntimeError("a defect")]
)
def test_defect_of_the_program_is_not_hidden(monkeypatch, error):
    command_that_raises(monkeypatch, error)
    with pytest.raises(type(error)):
        main(["check", "x"])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("--versio", "unknown option '--versio'. Did you mean '--version'? (see: tag2mask --help)"),
        ("label R", "missing argument 'DATA' (see: tag2mask label --help)"),
        (
            "label R D --out O --weights bst",
            "invalid value for '--weights': 'bst' is not one of 'best', 'last'. "
            "Did you mean 'best'? (see: tag2mask label --help)",
        ),
        ("check D E F", "unexpected words: F (see: tag2mask check --help)"),
        ("check D --srict", "unknown option '--srict'. Did you mean '--strict'?"),
        ("train rml/voc_mitb1 --lr 1e-4", "unknown option '--lr'. Did you mean optim.lr=1e-4?"),
    ],
)
def test_usage_error_is_one_plain_line(line, problem, capsys):
    assert main(line.split()) == 2
    assert capsys.readouterr().err == f"error: {problem}\n"


def test_every_command_has_its_file():
    files = {path.stem for path in Path(tag2mask.cli.__file__).parent.glob("*.py")}
    assert set(COMMANDS) <= files


@pytest.mark.parametrize(("words", "completions"), [("tr", "train"), ("train --st", "--stage")])
def test_shell_completes_commands_and_options(words, completions, monkeypatch, capsys):
    monkeypatch.setenv("_TAG2MASK_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"tag2mask {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split())))
    assert main([]) == 0
    assert capsys.readouterr().out.split() == completions.split()
