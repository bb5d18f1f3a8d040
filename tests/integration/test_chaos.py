"""The short form of `make chaos`: a few kills, locked folders, threads and signals each time."""

from pathlib import Path

import pytest
from tests.chaos.run import faults, try_faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc"),
]


@pytest.mark.parametrize("name", faults())
def test_a_few_faults_of_each_kind_do_no_harm(name: str, tmp_path: Path) -> None:
    path = tmp_path / "chaos.json"
    assert try_faults([name], short=True, seed=1, folder=tmp_path, path=path)
    assert path.is_file()
