"""Run pytest again and again, each time in a fork of a process that has the libraries loaded.

Importing torch takes longer than most tests. A fork has it at once, and imports the package under
test, with its error, anew. Reads one JSON job a line from standard input, answers with one line.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

LOADED = (
    *("numpy", "numba", "PIL.Image", "pydantic", "yaml", "typer", "rich.console", "pytest"),
    *("torch", "torch.utils.data", "torch.nn.functional", "transformers", "safetensors.torch"),
)


class Durations:
    """Pytest plugin: measures each test, or runs the known ones, the fastest first.

    Attributes:
        plugin: Plug-in whose conformance tests run; those of other plug-ins are left out.
        known: Test -> seconds. Other tests are left out; None runs all in their order.
        times: Test -> seconds, measured now.
    """

    def __init__(self, plugin: str, known: dict[str, float] | None) -> None:
        self.plugin = plugin
        self.known = known
        self.times: dict[str, float] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Choose and sort the tests."""
        items[:] = [item for item in items if self._concerns(item)]
        if self.known is not None:
            known = self.known
            chosen = [item for item in items if item.nodeid in known]
            items[:] = sorted(chosen, key=lambda item: known[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Add the time of set-up, test or tear-down."""
        self.times[report.nodeid] = self.times.get(report.nodeid, 0.0) + report.duration

    def _concerns(self, item: Any) -> bool:
        if not item.nodeid.startswith("tests/conformance/"):
            return True
        return self.plugin in item.name.partition("[")[2].rstrip("]").split("-")


def run_job(job: dict[str, Any]) -> dict[str, Any]:
    """Run pytest in a fork.

    Args:
        job: `arguments` of pytest; `plugin` and `known` of `Durations`; `cpu_s`, limit of processor
            time (0: none); `output`, file for what pytest prints; `durations`, file for the times.

    Returns:
        `code`, pytest's exit code, negative if a signal ended it, and `cpu_s` of the fork.
    """
    start = sum(_children_seconds())
    child = os.fork()
    if child == 0:
        _run_pytest(job)
    deadline = time.monotonic() + 10 * job["cpu_s"] if job["cpu_s"] else float("inf")
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:  # waits for something that never comes
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.02)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child, signal.SIGKILL)  # processes that tests started
    return {
        "code": os.waitstatus_to_exitcode(ended[1]),
        "cpu_s": sum(_children_seconds()) - start,
    }


def _children_seconds() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime, usage.ru_stime


def _run_pytest(job: dict[str, Any]) -> None:
    os.setpgrp()
    sys.dont_write_bytecode = job["known"] is not None  # a mutant must leave none behind
    output = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    if job["cpu_s"]:
        limit = int(job["cpu_s"]) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    import pytest

    durations, code = Durations(job["plugin"], job["known"]), 3
    try:
        code = int(pytest.main(job["arguments"], plugins=[durations]))
        Path(job["durations"]).write_text(json.dumps(durations.times))
    except BaseException:  # nothing may return to the loop of the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def main() -> None:
    """Load the libraries, then answer jobs until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    for name in LOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(run_job(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
