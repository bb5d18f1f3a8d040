"""Start the command line: find the command, import only its file, report users' mistakes.

Exit codes: 0 done, 2 a mistake that the user can mend (one line per problem on stderr), 75 a
process was lost and the same line may succeed, 130 interrupted by Ctrl-C, 143 ended by SIGTERM. Any
other error is a defect of the program and shows its traceback.
"""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from tag2mask.cli.command import HELP_OPTIONS, build_command
from tag2mask.cli.summary import docstring_summary
from tag2mask.errors import StoppedError, Tag2MaskError, did_you_mean

COMMANDS = (
    "demo",
    "init",
    "check",
    "train",
    "label",
    "predict",
    "tune",
    "evaluate",
    "export",
    "import",
    "app",
    "report",
    "list",
    "prepare",
    "convert",
    "reproduce",
    "compare",
)
"""Each is a file of this folder with a function `run` and examples `EXAMPLES`."""
USER_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
"""Errors of a disk that are no defect of the program: space, permission, a wrong kind of path."""
OUT_OF_MEMORY = (
    "memory ran out; in training lower optim.batch_size or data.crop_px, for masks set "
    "predict.max_side_px=640, lower predict.batch_size or use fewer --workers"
)
EXIT_USER = 2
EXIT_SIGNAL = 128
"""Added to the number of the signal that ended the program, as shells do."""
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]  # Typer does not export it


class Terminated(BaseException):
    """SIGTERM arrived; like KeyboardInterrupt it ends the program in order, workers included."""


class Commands(TyperGroup):
    """The commands, each imported when it is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words before the command's name.

        Raises:
            Tag2MaskError: If the first is an unknown option, with the nearest one.
        """
        options = [name for option in self.get_params(ctx) for name in option.opts]
        if args and args[0].startswith("-") and args[0] not in options:
            hint = did_you_mean(args[0], options)
            raise Tag2MaskError(f"unknown option '{args[0]}'.{hint} (see: tag2mask --help)")
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all commands in the order of the overview."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command; None if there is none of that name."""
        return build_command(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that a line names.

        Raises:
            Tag2MaskError: If there is none of that name, with the nearest one.
        """
        name = args[0]
        if name not in COMMANDS and not ctx.resilient_parsing:
            hint = did_you_mean(name, COMMANDS)
            known = f"Known: {', '.join(COMMANDS)} (see: tag2mask --help)"
            raise Tag2MaskError(f"unknown command '{name}'.{hint} {known}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the overview, which imports no command."""
        formatter.write(overview())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: Words after the program's name; None: those of the shell.
    """
    for stream in (sys.stdout, sys.stderr):  # a name that the terminal's encoding lacks is escaped
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return exit_code(lambda: run(list(sys.argv[1:] if arguments is None else arguments)))


def exit_code(job: Callable[[], object]) -> int:
    """Do a job of the command line; print a user's mistakes as lines on stderr, no traceback.

    Returns:
        Exit code of the program, see above.
    """
    try:
        with _catch_sigterm():
            job()
            sys.stdout.flush()
    except SystemExit as stop:  # --help has been printed
        return int(stop.code or 0)
    except Tag2MaskError as error:
        mark = "" if isinstance(error, StoppedError) else "error: "
        return _reject(*error.problems, code=error.exit_code, mark=mark)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGINT
    except Terminated:
        print("terminated", file=sys.stderr)
        return EXIT_SIGNAL + signal.SIGTERM
    except BrokenPipeError:  # `tag2mask list recipes | head` closes the pipe early
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _reject(*Tag2MaskError(f"{where}{error.strerror}").problems)
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
        return _reject(OUT_OF_MEMORY)
    return 0


def run(arguments: list[str]) -> None:
    """Run one command.

    Raises:
        Tag2MaskError: If the line does not fit the command, or the command cannot do its work.
        SystemExit: After help or completions.
    """
    group: Any = typer.main.get_command(_app())
    if "_TAG2MASK_COMPLETE" in os.environ:  # set by the completion script of the shell
        group.main(arguments, "tag2mask")
    try:
        with group.make_context("tag2mask", arguments) as context:
            group.invoke(context)
    except typer.Exit as stop:
        raise SystemExit(stop.exit_code) from stop
    except _UsageError as error:
        raise Tag2MaskError(usage_line(error)) from error


def usage_line(error: Any) -> str:
    """Return one line for a usage error of Typer, with the command whose help explains it."""
    text = " ".join(error.format_message().split()).replace("Value error, ", "")
    text = f"{text[0].lower()}{text[1:].rstrip('.')}"
    text = re.sub(r"got unexpected extra argument\(s\) \((.*)\)", r"unexpected words: \1", text)
    if choice := re.search(r"'([^']*)' is not one of (.*)", text):
        choices = re.findall(r"'([^']*)'", choice[2])
        text += f".{did_you_mean(choice[1], choices)}"
    command = error.ctx.command_path if error.ctx is not None else "tag2mask"
    return f"{text} (see: {command} --help)"


def overview() -> str:
    """Return the text of `tag2mask --help`, read from the commands' files without an import."""
    folder = Path(__file__).parent
    lines = [f"  {name:<10}{docstring_summary(folder / f'{name}.py')}" for name in COMMANDS]
    return "\n".join(
        [
            "usage: tag2mask COMMAND ...",
            "",
            "Images with tags in, pixel masks out.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --version             Show the version.",
            "  --install-completion  Let the shell complete commands and options.",
            "  --show-completion     Print the completion script, to copy or to change it.",
            "",
            "'tag2mask COMMAND --help' explains a command. First step: tag2mask demo",
        ]
    )


@contextmanager
def _catch_sigterm() -> Iterator[None]:
    """Turn SIGTERM into an exception inside the body; only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _app() -> typer.Typer:
    """Make the group of all commands and its own options."""
    app = typer.Typer(cls=Commands, context_settings=HELP_OPTIONS, invoke_without_command=True)
    app.callback()(_without_command)
    return app


def _without_command(
    ctx: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    """Images with tags in, pixel masks out."""
    if version:
        from importlib.metadata import version as installed

        print(f"tag2mask {installed('tag2mask')}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        print(overview())


def _is_out_of_memory(error: Exception) -> bool:
    """Return whether Python or torch could not get memory, on the CPU or on a GPU."""
    is_known = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return is_known or "can't allocate memory" in str(error)


def _reject(*problems: str, code: int = EXIT_USER, mark: str = "error: ") -> int:
    """Print each problem as a line of its own and return the exit code."""
    for line in problems:
        print(f"{mark}{line}", file=sys.stderr)
    return code
