import re
import sys
from pathlib import Path

import pytest
from tests.integration.two_machines import require_namespaces, run_on_both

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"
VARIABLE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
WORDS = (
    "cam/synthetic_tiny data.count=4 data.val_count=2 optim.steps=3 optim.batch_size=2 "
    "run.workers=0 run.samples=0 run.estimate=false"
)


def documented_command() -> str:
    """Return the command for two machines in the docs, as one line."""
    text = DOCS.read_text(encoding="utf-8")
    found = re.search(r"^torchrun --nnodes=2 (\\\n|.)*$", text, re.MULTILINE)
    assert found is not None
    return found[0].replace("\\\n", " ")


def test_the_documented_command_names_both_machines_and_restarts() -> None:
    command = documented_command()
    assert "--rdzv-endpoint=node1:29400" in command
    assert "--max-restarts=" in command
    assert command.endswith("-m tag2mask train DATA --out RUN")
    text = DOCS.read_text(encoding="utf-8")
    assert text.count(f"export {VARIABLE}") == text.count("torchrun --nnodes")


@pytest.mark.slow
def test_the_documented_command_trains_on_two_machines(tmp_path: Path) -> None:
    require_namespaces()
    command = documented_command().replace("DATA", WORDS)
    command = command.replace("torchrun", f"{sys.executable} -m torch.distributed.run")
    command = command.replace("--nproc-per-node=2", "--nproc-per-node=1")  # for few cores
    variables = {"OMP_NUM_THREADS": "1", **dict([VARIABLE.split("=")])}
    done = run_on_both(command, tmp_path, variables, timeout=600)
    assert done.returncode == 0, done.stdout[-3000:]
    assert (tmp_path / "RUN" / "weights" / "last.safetensors").is_file()
    log = (tmp_path / "RUN" / "log.jsonl").read_text(encoding="utf-8")
    assert '"processes": 2' in log
