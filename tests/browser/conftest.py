"""A trained network, its page as a process of its own, and Chromium; see `make test-browser`."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tag2mask import api
from tag2mask.data.synthetic import SyntheticConfig, write_scenes

if not os.environ.get("CI"):  # there, a missing package is an error
    for package in ("playwright", "starlette", "uvicorn"):
        pytest.importorskip(package)
QUICK = {
    "optim.steps": 40,
    "optim.batch_size": 8,
    "data.count": 60,
    "data.crop_px": 64,
    "run.workers": 0,
    "run.samples": 0,
}
SIZE = 128
"""Side of the images in pixels."""


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on few synthetic scenes; its masks are poor, which corrections need."""
    out = tmp_path_factory.mktemp("run") / "few_scenes"
    api.train("cam/synthetic_tiny", out, overrides=QUICK)
    return out


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six tagged scenes without masks."""
    root = tmp_path / "scenes"
    write_scenes(SyntheticConfig(count=5, val_count=1, size_px=SIZE, seed=7), root)
    shutil.rmtree(root / "masks")
    return root


@pytest.fixture
def serve(run: Path) -> Iterator[Callable[..., str]]:
    """Start `tag2mask app RUN ...`; returns the address of the page."""
    started = []

    def start(*words: str | Path) -> str:
        command = [sys.executable, "-m", "tag2mask", "app", str(run), *map(str, words)]
        process = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
        started.append(process)
        for line in process.stdout:
            if line.startswith("page:"):
                return line.split()[1]
        raise AssertionError("the page did not start")

    yield start
    for process in started:
        process.send_signal(signal.SIGINT)
        # 0 where the shell that runs the tests ignores Ctrl-C, as in the background
        assert process.wait(timeout=60) in (0, 130)
        process.stdout.close()


@pytest.fixture(scope="session")
def browser():
    """Headless Chromium: that of the system, or the one that Playwright installed."""
    from playwright.sync_api import Error, sync_playwright

    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
    with sync_playwright() as playwright:
        try:
            opened = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        except Error as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """Open the page as a new visitor; the test fails at an error in its scripts."""
    contexts, problems = [], []

    def open_page(address: str, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 820}, **options})
        context.set_default_timeout(60_000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(address)
        page.wait_for_selector("#files:enabled", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []
