"""Training through the command's own path: loader, mixed precision, checkpoint, resuming."""

import json
import math
from pathlib import Path

import pytest
import torch
from tests.conformance.stand_ins import small_batch, small_method
from tests.gpu.parity import DEVICE

from tag2mask import plugins
from tag2mask.checkpoint import read_state, save_state
from tag2mask.config.recipe import Recipe, load_recipe
from tag2mask.config.schema import OptimConfig
from tag2mask.data.loader import batches
from tag2mask.methods.base import Method
from tag2mask.pipeline import train
from tag2mask.training.optimizer import build_optimizer
from tag2mask.training.snapshot import restore, snapshot

pytestmark = pytest.mark.gpu


def short_recipe(name: str) -> Recipe:
    """Return the smallest bundled recipe of a method, for four steps in bfloat16."""
    recipe = load_recipe(name)
    optim = recipe.optim.model_copy(update={"steps": 4, "batch_size": 2})
    run = recipe.run.model_copy(
        update={"precision": "bf16", "workers": 1, "log_every": 1, "samples": 1}
    )
    data = recipe.data.model_copy(update={"count": 8, "val_count": 2})
    return recipe.model_copy(update={"data": data, "optim": optim, "run": run})


@pytest.mark.parametrize("name", ["rml/synthetic_tiny", "afa/synthetic_tiny"])
def test_a_run_trains_on_the_gpu_and_logs_it(name: str, tmp_path: Path) -> None:
    run = train(short_recipe(name), tmp_path / "run")
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert "cpu" not in records[0]["machine"]["device"]
    losses = [record["loss"] for record in records if "loss" in record]
    assert len(losses) == 4
    assert all(math.isfinite(loss) for loss in losses)
    assert (run / "weights" / "last.safetensors").is_file()
    peak = [record["peak_memory_mib"] for record in records if "peak_memory_mib" in record][-1]
    assert peak == pytest.approx(torch.cuda.max_memory_allocated() / 2**20, rel=0.5)


def test_a_saved_state_continues_exactly(tmp_path: Path) -> None:
    config = OptimConfig(steps=10)

    def build() -> tuple[Method, torch.optim.Optimizer]:
        method = small_method("cam").to(DEVICE).train()
        return method, build_optimizer(method, config)

    def step(method: Method, optimizer: torch.optim.Optimizer, seed: int) -> None:
        sum(method.losses(small_batch(seed=seed).to(DEVICE), seed).values()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    method, optimizer = build()
    step(method, optimizer, 0)
    save_state(tmp_path / "state", snapshot(method, optimizer), {"step": 1})
    step(method, optimizer, 1)
    resumed, other = build()
    restore(resumed, other, read_state(tmp_path / "state")[0], "state")
    step(resumed, other, 1)
    expected = method.state_dict()
    for key, value in resumed.state_dict().items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_arrive_in_pinned_memory(workers: int) -> None:
    config = short_recipe("rml/synthetic_tiny").data
    source = plugins.load("data", "synthetic")(config, "train")
    opened = batches(source, config, batch_size=2, seed=0, workers=workers)
    batch = next(opened)
    opened.close()
    assert batch.image.is_pinned()
    assert batch.tags.is_pinned()
    assert batch.valid.is_pinned()
