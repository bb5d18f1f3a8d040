import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tag2mask import plugins

SCRIPT = Path(__file__).with_name("toy_training.py")


@pytest.fixture(scope="session")
def toy_module():
    spec = importlib.util.spec_from_file_location("toy_training", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def toy(toy_module, monkeypatch):
    """The toy module, its plug-ins known to recipes."""
    monkeypatch.setattr(plugins, "load", toy_module.load)
    return toy_module


@pytest.fixture
def run_toy():
    """Run the toys in a process of their own; returns the finished process."""

    def run(*words, launcher=(sys.executable,), **environment):
        return subprocess.run(
            [*launcher, str(SCRIPT), *map(str, words)],
            # sums depend on the number of threads, so both processes get the same
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    return run
