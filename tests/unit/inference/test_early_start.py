"""The server of workers starts before PyTorch is imported, in a fresh interpreter."""

import multiprocessing
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from tag2mask.inference import early_start
early_start.WORKERS = "json"  # a quick import
early_start.start_early(int(sys.argv[1]))
assert "torch" not in sys.modules
from multiprocessing import forkserver
print(forkserver._forkserver._forkserver_pid is not None)
"""


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="needs a forkserver"
)
@pytest.mark.parametrize(("workers", "starts"), [(1, "False"), (2, "True")])
def test_only_several_processes_start_the_server(workers: int, starts: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(workers)], capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == starts
