"""The server of workers starts before PyTorch is imported, in a fresh interpreter."""

import multiprocessing
import subprocess
import sys

import pytest

SCRIPT = """
import signal
import sys
from pathlib import Path
from tag2mask.inference import early_start
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
early_start.WORKERS = "json"  # a quick import
early_start.start_early(int(sys.argv[1]))
assert "torch" not in sys.modules
from multiprocessing import forkserver
server = forkserver._forkserver._forkserver_pid
print(server is not None)
if server is not None and Path("/proc/self/status").is_file():
    lines = Path(f"/proc/{server}/status").read_text().splitlines()
    ignored = next(int(line.split()[1], 16) for line in lines if line.startswith("SigIgn"))
    assert ignored & 1 << signal.SIGINT - 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
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
