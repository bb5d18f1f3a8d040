"""The door of the command line: finds the verb, imports only its file, catches users' mistakes.

Exit codes: 0 done, 2 a mistake the user can mend (one line per fault on stderr), 130 interrupted.
Anything else is a defect of the program and shows its traceback.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tag2mask.cli.summary import docstring_summary
from tag2mask.errors import Tag2MaskError, did_you_mean

VERBS = (
    "demo",
    "check",
    "train",
    "label",
    "predict",
    "evaluate",
    "report",
    "list",
    "convert",
)
"""Each is a file of this folder with a function `run(arguments)`."""
USER_ERRNOS = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EEXIST,
    errno.EFBIG,
    errno.EISDIR,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}
"""What a disk refuses through no fault of the program: space, permission, a wrong kind of path."""
EXIT_USER = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: What follows the program's name; None: taken from the shell.
    """
    return exit_code(lambda: _dispatch(list(sys.argv[1:] if arguments is None else arguments)))


def exit_code(job: Callable[[], object]) -> int:
    """Do a job of the command line; a user's mistake is a line per fault on stderr, no traceback.

    Returns:
        Exit code of the program, see above.
    """
    try:
        job()
        sys.stdout.flush()
    except SystemExit as stop:  # --help has been printed
        return int(stop.code or 0)
    except Tag2MaskError as error:
        return _reject(str(error))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `tag2mask list recipes | head`: the reader has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in USER_ERRNOS:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _reject(f"{where}{error.strerror}")
    return 0


def _dispatch(arguments: list[str]) -> None:
    """Hand the arguments to their verb, or show the overview."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return
    verb, rest = arguments[0], arguments[1:]
    if verb in ("--version", "version"):
        from importlib.metadata import version

        print(f"tag2mask {version('tag2mask')}")
        return
    if verb not in VERBS:
        raise Tag2MaskError(
            f"unknown command '{verb}'.{did_you_mean(verb, VERBS)} Known: {', '.join(VERBS)}"
        )
    importlib.import_module(f"tag2mask.cli.{verb}").run(rest)


def overview() -> str:
    """Return the text of `tag2mask --help`, read from the verbs' files without importing them."""
    folder = Path(__file__).parent
    lines = [f"  {verb:<10}{docstring_summary(folder / f'{verb}.py')}" for verb in VERBS]
    return "\n".join(
        [
            "usage: tag2mask COMMAND ...",
            "",
            "Images with tags in, pixel masks out.",
            "",
            "commands:",
            *lines,
            "",
            "'tag2mask COMMAND --help' explains one. First steps: tag2mask demo",
        ]
    )


def _reject(message: str) -> int:
    """Print each fault as a line of its own and return the exit code of a user's mistake."""
    for line in message.splitlines():
        print(f"error: {line}", file=sys.stderr)
    return EXIT_USER
