import json

import pytest
import torch

from tag2mask import plugins
from tag2mask.checkpoint import read_weights
from tag2mask.config.recipe import load_recipe
from tag2mask.config.schema import StepsOrFraction
from tag2mask.errors import RunError
from tag2mask.methods.build import build_method
from tag2mask.training import estimate
from tag2mask.training.estimate import MIN_STEPS, CostRecord, Estimate, Phase, split_phases
from tag2mask.training.trainer import train

LONG = {"optim__steps": 48, "data__held_out": 3, "run__samples": 1, "run__evaluate_every": 0.25}


def weights(folder):
    return read_weights(folder / "weights" / "last.safetensors")[0]


def records(folder):
    """Logged numbers that do not depend on the clock."""
    lines = map(json.loads, (folder / "log.jsonl").read_text("utf-8").splitlines())
    clock = ("images_per_s", "peak_memory_mib")
    return [
        {key: line[key] for key in line if key not in clock}
        for line in lines
        if line.get("event") not in ("start", "resume")
    ]


def cost(folder):
    return json.loads((folder / "metrics.json").read_text("utf-8"))["estimate"]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_the_measurement_does_not_change_the_run(toy, tmp_path, workers):
    words = {**LONG, "run__workers": workers, "optim__max_grad_norm": 1.0}
    with_it = train(toy.recipe(**words), tmp_path / "with")
    without = train(toy.recipe(**words, run__estimate=False), tmp_path / "without")
    torch.testing.assert_close(weights(with_it), weights(without), rtol=0, atol=0)
    assert records(with_it) == records(without)
    assert cost(without) is None
    assert all(value >= 0 for value in cost(with_it).values())


def test_a_resumed_run_is_measured_again_and_ends_the_same(toy, tmp_path, monkeypatch, capfd):
    words = {**LONG, "optim__steps": 60}
    uninterrupted = train(toy.recipe(**words), tmp_path / "uninterrupted")
    monkeypatch.setenv("TOY_SIGTERM_AT", "12")
    with pytest.raises(RunError, match="stopped at step 13"):
        train(toy.recipe(**words), tmp_path / "resumed")
    capfd.readouterr()
    train(toy.recipe(**words), tmp_path / "resumed", resume=True)
    assert "for 47 steps" in capfd.readouterr().err
    assert cost(tmp_path / "resumed")["from_step"] == 13
    torch.testing.assert_close(
        weights(uninterrupted), weights(tmp_path / "resumed"), rtol=0, atol=0
    )


def test_short_runs_are_not_measured(toy, tmp_path, capfd):
    run = train(toy.recipe(optim__steps=MIN_STEPS - 1), tmp_path / "short")
    assert cost(run) is None
    assert "estimate" not in capfd.readouterr().err


def test_bf16_is_measured_in_bf16(toy, tmp_path):
    run = train(toy.recipe(**LONG, run__precision="bf16"), tmp_path / "run")
    assert cost(run)["seconds"] > 0


def test_seconds_are_those_of_all_phases_and_evaluations():
    phases = (Phase(10, 30, in_warmup=True), Phase(30, 100, in_warmup=False))
    made = Estimate(phases, (0.5, 2.0), 3, 160.0, 2048.0)
    assert made.seconds == 20 * 0.5 + 70 * 2.0 + 3 * 160.0
    assert str(made) == (
        "estimate: 10.5 min for 90 steps (0.5 s per step, then 2 s from about step 30 on; "
        "3 x 160 s of evaluation), 2.0 GiB of memory"
    )
    assert CostRecord(None, 0).values(1.0) is None


def changed(name, **sections):
    recipe = load_recipe(name)
    update = {key: getattr(recipe, key).model_copy(update=sections[key]) for key in sections}
    return recipe.with_classes(("a", "b")).model_copy(update=update)


@pytest.mark.parametrize(
    ("method", "optim", "step", "bounds"),
    [
        ({"warmup_rule": "fixed", "warmup": 0.2}, {"steps": 100}, 0, [0, 20, 100]),
        # between 0.2 and 0.5 of all steps: halfway
        ({"warmup_rule": "auto", "warmup": 0.2}, {"steps": 100}, 0, [0, 35, 100]),
        ({"warmup_rule": "fixed", "warmup": 0.2}, {"steps": 100}, 60, [60, 100]),
        (
            {"warmup_rule": "fixed", "warmup": 0.2},
            {"steps": 100, "late_batch_size": 9, "late_from": 0.7},
            0,
            [0, 20, 70, 100],
        ),
    ],
)
def test_phases_begin_where_steps_get_dearer(method, optim, step, bounds):
    recipe = changed("rml/synthetic_tiny", method=method, optim=optim)
    phases = split_phases(recipe, build_method(recipe), step)
    assert [phase.start for phase in phases] == bounds[:-1]
    assert [phase.stop for phase in phases] == bounds[1:]
    assert [phase.in_warmup for phase in phases] == [stop <= 35 for stop in bounds[1:]]


def test_the_dear_part_of_the_schedule_is_measured(toy, tmp_path, monkeypatch):
    """A clock that only the network moves: 1 s per step, 5 s from the middle on."""
    now = [0.0]

    class LateConfig(toy.ToyMethodConfig):
        calm: bool = True
        middle: StepsOrFraction = 0.5

    class Late(toy.ToyMethod):
        Config = LateConfig

        def losses(self, batch, step):
            now[0] += 5 if step >= self.steps // 2 else 1
            return super().losses(batch, step)

    def load(package, name):
        return Late if (package, name) == ("methods", "toy") else toy.load(package, name)

    monkeypatch.setattr(plugins, "load", load)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now[0])
    recipe = toy.recipe(optim__steps=60, method__calm=True)
    run = train(recipe, tmp_path / "run")
    assert cost(run)["seconds"] == 30 * 1 + 30 * 5
    assert cost(run)["actual_seconds"] == 30 * 1 + 30 * 5
