"""Every method learns in two processes what it learns in one from the same images."""

import socket
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from tests.conformance.steps_of_ranks import CASES, Case, run_rank, take_steps
from torch import Tensor

Found = dict[str, dict[str, Tensor]]


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> list[Found]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(run_rank, args=(port, folder), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def one_process() -> Found:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = take_steps(CASES)
    torch.set_num_threads(threads)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_two_processes_learn_what_one_learns_from_the_same_images(
    case: Case, one_process: Found, two_processes: list[Found]
) -> None:
    """Gradients and weights over two steps; losses are means over the processes."""
    one = one_process[str(case)]
    first, second = (found[str(case)] for found in two_processes)
    assert first.keys() == second.keys() == one.keys()
    for name, value in one.items():
        if name.endswith("(loss)"):
            torch.testing.assert_close((first[name] + second[name]) / 2, value, rtol=1e-9, atol=0)
            continue
        assert torch.equal(first[name], second[name]), name
        scale = value.abs().max().item()
        difference = (first[name] - value).abs().max().item()
        assert difference <= 1e-9 * scale + 1e-12, f"{name}: {difference:.2g} of {scale:.2g}"
