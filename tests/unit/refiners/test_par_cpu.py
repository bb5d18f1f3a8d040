import subprocess
import sys

import numba
import pytest
import torch

from tag2mask.refiners import par_cpu
from tag2mask.refiners.par import ParConfig, par_iterate, par_kernel

NEW_PROCESS = """
import torch
from tag2mask.refiners.par import PAR, ParConfig
torch.set_num_threads({threads})
PAR(ParConfig())(torch.zeros(1, 3, 8, 8), torch.full((1, 2, 8, 8), 0.5))
print(torch.get_num_threads())
"""


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="needs two threads")
def test_first_run_keeps_torchs_thread_count():
    done = subprocess.run(
        [sys.executable, "-c", NEW_PROCESS.format(threads=1)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1"]


def test_functions_are_compiled_once_for_all_sizes():
    config = ParConfig()
    for height, width in ((5, 7), (16, 3), (1, 1)):
        kernel = par_kernel(torch.rand(2, 3, height, width) * 255, config)
        par_iterate(torch.rand(2, 4, height, width), kernel, config.dilations, 1)
    assert len(par_cpu._fill_kernel.signatures) == 1
    assert len(par_cpu._average_rows.signatures) == 1


def test_result_is_independent_of_the_memory_layout():
    config = ParConfig()
    kernel = par_kernel(torch.rand(1, 3, 9, 12) * 255, config)
    maps = torch.rand(1, 2, 12, 9).transpose(2, 3)
    expected = par_iterate(maps.contiguous(), kernel.contiguous(), config.dilations, 3)
    torch.testing.assert_close(par_iterate(maps, kernel, config.dilations, 3), expected)
