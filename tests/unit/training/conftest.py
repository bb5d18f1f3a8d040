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
    """Return the toy module; recipes can name its plug-ins."""
    monkeypatch.setattr(plugins, "load", toy_module.load)
    return toy_module


@pytest.fixture
def run_toy():
    """Return a function that trains the toys in a separate process."""

    def run(*words, launcher=(sys.executable,), script=(SCRIPT,), **environment):
        return subprocess.run(
            [*launcher, *map(str, (*script, *words))],
            # Sums depend on the number of threads, so both processes use the same number.
            env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads()), **environment},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run
