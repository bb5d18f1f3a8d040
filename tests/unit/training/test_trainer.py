import json
import signal

import numpy as np
import pytest
import torch

from tag2mask.checkpoint import check_state, read_weights
from tag2mask.config.recipe import load_recipe
from tag2mask.config.stages import StageConfig
from tag2mask.errors import DataError, RecipeError, RunError, StoppedError
from tag2mask.io.masks import save_mask
from tag2mask.methods.build import build_method
from tag2mask.training import trainer
from tag2mask.training.trainer import train
from tag2mask.training.validation import Evaluation

CLOCK = ("images_per_s", "peak_memory_mib")


def weights(folder, which="last"):
    return read_weights(folder / "weights" / f"{which}.safetensors")[0]


def log_lines(folder):
    text = (folder / "log.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def numbers(folder):
    """All logged numbers that do not depend on the clock."""
    records = [line for line in log_lines(folder) if line.get("event") not in ("start", "resume")]
    return [{key: line[key] for key in line if key not in CLOCK} for line in records]


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def assert_same_run(folder, other):
    torch.testing.assert_close(weights(folder), weights(other), rtol=0, atol=0)
    assert numbers(folder) == numbers(other)
    clock = {"seconds": 0}
    assert metrics(folder) | clock == metrics(other) | clock


def test_run_folder_contains_every_documented_file(toy, tmp_path):
    recipe = toy.recipe(
        data__held_out=3, data__classes=(), run__samples=2, optim__max_grad_norm=1.0
    )
    run = train(recipe, tmp_path / "run", command="tag2mask train toy")
    assert load_recipe(str(run / "recipe.yaml")).data.classes == ("blue", "green", "red")
    first, *records = log_lines(run)
    assert (first["event"], first["seed"], first["command"]) == ("start", 1, "tag2mask train toy")
    assert first["versions"]["torch"] == torch.__version__
    assert first["machine"]["device"] == "cpu"
    steps = [line for line in records if "losses" in line]
    assert [line["step"] for line in steps] == [5, 10, 12]
    assert steps[0]["loss"] == pytest.approx(sum(steps[0]["losses"].values()))
    assert set(steps[0]["losses"]) == {"classification", "late"}
    assert set(steps[0]["monitor"]) == {"peak", "grad_norm"}
    assert set(steps[0]["lr"]) == {"base", "head"}
    assert all(steps[0][key] > 0 for key in CLOCK)
    assert len(list((run / "samples").iterdir())) == 2 * 4
    state, used = read_weights(run / "weights" / "best.safetensors")
    check_state(build_method(used).state_dict(), state, "best")


def test_training_lowers_the_loss(toy, tmp_path):
    recipe = toy.recipe(method__calm=True, optim__steps=60, run__save_every=0)
    steps = [line for line in log_lines(train(recipe, tmp_path / "run")) if "losses" in line]
    assert steps[-1]["loss"] < 0.7 * steps[0]["loss"]


@pytest.mark.parametrize("padding", ["mean", "black"])
def test_the_mean_color_pads_crops_with_zero_after_normalizing(toy, tmp_path, monkeypatch, padding):
    padded = []
    compute_losses = toy.ToyMethod.losses

    def losses(method, batch, step):
        padded.append(method.backbone.normalize(batch.image).permute(0, 2, 3, 1)[~batch.valid])
        return compute_losses(method, batch, step)

    monkeypatch.setattr(toy.ToyMethod, "losses", losses)
    train(toy.recipe(data__padding=padding, data__scale_max=0.6), tmp_path / "run")
    colors = torch.cat(padded)
    assert len(colors) > 1000
    if padding == "mean":
        assert colors.abs().max() < 0.5 / 57  # half a gray level
    else:
        assert colors.max() < -1.7


def test_same_seed_gives_the_same_run_and_another_seed_does_not(toy, tmp_path):
    runs = [
        train(toy.recipe(data__held_out=3, run__seed=seed), tmp_path / name)
        for seed, name in ((1, "a"), (1, "b"), (2, "c"))
    ]
    assert_same_run(runs[0], runs[1])
    assert not torch.equal(weights(runs[0])["late.weight"], weights(runs[2])["late.weight"])


def test_evaluation_does_not_change_what_is_learned(toy, tmp_path):
    often = toy.recipe(data__held_out=2, run__evaluate_every=1, run__samples=1)
    never = toy.recipe(run__evaluate_every=0, run__save_every=0, run__workers=1)
    one, other = train(often, tmp_path / "often"), train(never, tmp_path / "never")
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interrupted_run_resumes_exactly(toy, tmp_path, monkeypatch, name):
    recipe = toy.recipe(data__held_out=3, optim__accumulate_steps=2, run__workers=1)
    uninterrupted = train(recipe, tmp_path / "uninterrupted")
    monkeypatch.setenv(f"TOY_{name}_AT", "6")
    logged = r"stopped at step 7 of 12.*resume with: tag2mask train --resume .*resumed"
    with pytest.raises(StoppedError, match=logged) as caught:
        train(recipe, tmp_path / "resumed")
    assert caught.value.exit_code == 128 + getattr(signal, name)
    assert_same_run(train(recipe, tmp_path / "resumed", resume=True), uninterrupted)


def test_a_callback_receives_every_step_and_the_losses_of_log_steps(toy, tmp_path):
    steps = []
    run = train(toy.recipe(run__log_every=5), tmp_path / "run", on_step=steps.append)
    assert [one.step for one in steps] == list(range(1, 13))
    assert {one.total for one in steps} == {12}
    logged = [one.losses for one in steps if one.losses]
    assert logged == [line["losses"] for line in log_lines(run) if "losses" in line]
    assert len(logged) == 3


def test_a_callback_can_cancel_a_run_that_then_resumes_exactly(toy, tmp_path):
    def cancel(progress):
        if progress.step == 8:
            raise KeyboardInterrupt

    recipe = toy.recipe(run__save_every=4)
    uninterrupted = train(recipe, tmp_path / "uninterrupted")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "resumed", on_step=cancel)
    assert_same_run(train(recipe, tmp_path / "resumed", resume=True), uninterrupted)


@pytest.mark.parametrize("stop_at", [3, 6, 8])
def test_a_run_of_sgd_with_growing_batches_resumes_exactly(toy, tmp_path, monkeypatch, stop_at):
    """Stopped before, at and after the step (7) from which batches are larger."""
    growth = {"late_batch_size": 5, "late_from": 7, "accumulate_steps": 2, "batch_size": 3}
    sgd = {"optimizer": "sgd", "momentum": 0.9, "bias_lr_factor": 2, "decay_biases": False}
    recipe = toy.recipe(**{f"optim__{key}": value for key, value in (growth | sgd).items()})
    uninterrupted = train(recipe, tmp_path / "uninterrupted")
    monkeypatch.setenv("TOY_SIGTERM_AT", str(stop_at))
    with pytest.raises(RunError, match=f"stopped at step {stop_at + 1} of 12"):
        train(recipe, tmp_path / "resumed")
    assert_same_run(train(recipe, tmp_path / "resumed", resume=True), uninterrupted)


TWO_OF_SIX = {"data__count": 6, "data__masked": 2, "data__true_masks": "train"}


def balanced_cross_entropy(cam, tags, mask):
    """The loss on true masks written a second time, in NumPy: (N, F, h, w), (N, F), (N, H, W)."""
    cam, grid = cam.astype(np.float64), np.arange(mask.shape[1])
    at = np.clip((grid + 0.5) * cam.shape[2] / len(grid) - 0.5, 0, cam.shape[2] - 1)
    low = np.floor(at).astype(int)
    high, part = np.minimum(low + 1, cam.shape[2] - 1), at - low
    rows = cam[:, :, low] * (1 - part)[:, None] + cam[:, :, high] * part[:, None]
    full = rows[..., low] * (1 - part) + rows[..., high] * part
    halves = [[], []]
    for image_cam, image_tags, image_mask in zip(full, tags, mask, strict=True):
        scores = {0: np.full(image_mask.shape, 4.5)}
        for k, plane in enumerate(image_cam, start=1):
            if image_tags[k - 1] or (image_mask == k).any():
                scores[k] = plane / max(plane.max(), 1) * 10
        total = np.log(sum(np.exp(plane) for plane in scores.values()))
        for k, plane in scores.items():
            halves[k > 0] += list((total - plane)[image_mask == k])
    return sum(np.mean(half) for half in halves if half) / 2


def test_a_run_with_two_of_six_masks_learns_from_them(toy, tmp_path, monkeypatch):
    first = []
    compute_losses = toy.ToyMethod.losses

    def losses(method, batch, step):
        if step == 0:
            cam = method.compute_cam(method.backbone.normalize(batch.image)).cam
            first.append((batch, cam.detach().numpy()))
        return compute_losses(method, batch, step)

    monkeypatch.setattr(toy.ToyMethod, "losses", losses)
    recipe = toy.recipe(**TWO_OF_SIX, method__calm=True, run__log_every=1)
    run = train(recipe, tmp_path / "run")
    start, *records = log_lines(run)
    assert start["true_masks"] == 2
    ((batch, cam),) = first
    assert batch.name[-1] in ("train0", "train1")  # one of four is drawn from the images with masks
    rows = [row for row, name in enumerate(batch.name) if name in ("train0", "train1")]
    assert list(batch.masked_rows) == rows
    expected = balanced_cross_entropy(cam[rows], batch.tags.numpy()[rows], batch.mask.numpy()[rows])
    assert records[0]["losses"]["true_masks"] == pytest.approx(expected, rel=1e-5)


def test_the_weight_scales_the_loss_on_true_masks(toy, tmp_path):
    found = []
    for weight in (1.0, 0.25):
        recipe = toy.recipe(
            **TWO_OF_SIX, method__calm=True, method__true_mask_weight=weight, optim__steps=1,
            optim__warmup=0,
        )  # fmt: skip
        found.append(log_lines(train(recipe, tmp_path / str(weight)))[1]["losses"]["true_masks"])
    assert found[1] == pytest.approx(0.25 * found[0], rel=1e-6)


def test_masks_that_are_only_for_scores_change_nothing_in_training(toy, tmp_path, capsys):
    scored = train(toy.recipe(data__masked=2), tmp_path / "scored")
    shown = capsys.readouterr().err
    assert "2 images have true masks" in shown
    assert "data.true_masks=train" in shown
    plain = train(toy.recipe(data__masks=False), tmp_path / "plain")
    torch.testing.assert_close(weights(scored), weights(plain), rtol=0, atol=0)


def test_a_run_with_true_masks_resumes_exactly(toy, tmp_path, monkeypatch):
    recipe = toy.recipe(**TWO_OF_SIX, data__held_out=3, optim__accumulate_steps=2)
    uninterrupted = train(recipe, tmp_path / "uninterrupted")
    monkeypatch.setenv("TOY_SIGTERM_AT", "6")
    with pytest.raises(RunError, match="stopped at step 7 of 12"):
        train(recipe, tmp_path / "resumed")
    assert_same_run(train(recipe, tmp_path / "resumed", resume=True), uninterrupted)


@pytest.fixture
def labels(toy, tmp_path):
    """A folder of the toy source's own masks, as the command `label` writes them."""
    recipe = toy.recipe()
    source = toy.ToySource(recipe.data, "train")
    folder = tmp_path / "labels"
    folder.mkdir()
    (folder / "classes.json").write_text(json.dumps({"classes": list(source.class_names)}))
    for index, name in enumerate(source.names):
        save_mask(source[index].mask, folder / f"{name}.png")
    return folder


def test_labels_from_a_folder_replace_the_masks_of_the_data(toy, tmp_path, labels):
    words = {"method__name": "supervised", "optim__steps": 3, "method__decoder_width": 8}
    true = train(toy.recipe(**words), tmp_path / "true")
    same = train(
        toy.recipe(**words, data__labels=str(labels), data__masks=False), tmp_path / "same"
    )
    torch.testing.assert_close(weights(true), weights(same), rtol=0, atol=0)
    for path in labels.glob("*.png"):
        save_mask(np.full((48, 64), 3, dtype=np.uint8), path)
    other = train(toy.recipe(**words, data__labels=str(labels)), tmp_path / "other")
    key = "decoder.classifier.bias"
    assert not torch.equal(weights(true)[key], weights(other)[key])


def test_labels_that_the_method_does_not_read_are_not_decoded(toy, tmp_path, labels):
    for path in labels.glob("*.png"):
        path.write_bytes(b"no picture")
    recipe = toy.recipe(data__labels=str(labels), optim__steps=2)
    assert metrics(train(recipe, tmp_path / "run"))["steps"] == 2


def test_a_method_that_needs_masks_is_rejected_without(toy, tmp_path):
    recipe = toy.recipe(method__name="supervised", data__masks=False)
    with pytest.raises(DataError, match=r"set data\.labels to a folder"):
        train(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pace_counts_the_images_of_grown_batches(toy, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(clock))
    growth = {"late_batch_size": 10, "late_from": 0.5, "accumulate_steps": 2}
    growing = {f"optim__{key}": value for key, value in growth.items()}
    recipe = toy.recipe(**growing, run__log_every=4)
    steps = [line for line in log_lines(train(recipe, tmp_path / "run")) if "losses" in line]
    # One tick per step; two batches of 4 images in steps 1 to 6, then two of 10.
    assert [line["images_per_s"] for line in steps] == [8, (8 + 8 + 20 + 20) / 4, 20]


def test_a_killed_run_resumes_exactly(toy, tmp_path, run_toy):
    uninterrupted = train(toy.recipe(data__held_out=3), tmp_path / "uninterrupted")
    words = (tmp_path / "resumed", "data__held_out=3")
    assert run_toy(*words, TOY_SIGKILL_AT="7").returncode == -9
    with (tmp_path / "resumed" / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write('{"step": 7, "los')  # what a kill in the middle of a line leaves
    done = run_toy(*words, "--resume")
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path / "resumed", uninterrupted)
    assert [
        line["step"] for line in log_lines(tmp_path / "resumed") if line.get("event") == "resume"
    ] == [6]


def test_a_run_killed_before_its_first_save_starts_again(toy, tmp_path, run_toy):
    uninterrupted = train(toy.recipe(), tmp_path / "uninterrupted")
    assert run_toy(tmp_path / "resumed", TOY_SIGKILL_AT="1").returncode == -9
    assert_same_run(train(toy.recipe(), tmp_path / "resumed", resume=True), uninterrupted)


def test_resuming_is_exact_even_if_opening_the_batches_draws_numbers(toy, tmp_path, monkeypatch):
    real = trainer.batches

    def drawing(*words, **settings):
        torch.rand(3)
        return real(*words, **settings)

    uninterrupted = train(toy.recipe(), tmp_path / "uninterrupted")
    monkeypatch.setenv("TOY_SIGTERM_AT", "6")
    with pytest.raises(RunError, match="stopped"):
        train(toy.recipe(), tmp_path / "resumed")
    monkeypatch.setattr(trainer, "batches", drawing)
    assert_same_run(train(toy.recipe(), tmp_path / "resumed", resume=True), uninterrupted)


def test_resuming_a_finished_run_changes_nothing(toy, tmp_path):
    recipe = toy.recipe(data__held_out=2)
    run = train(recipe, tmp_path / "run")
    before = (numbers(run), metrics(run), (run / "weights" / "best.safetensors").read_bytes())
    train(recipe, run, resume=True)
    assert (
        numbers(run),
        metrics(run),
        (run / "weights" / "best.safetensors").read_bytes(),
    ) == before


def test_resuming_with_another_recipe_is_rejected(toy, tmp_path):
    run = train(toy.recipe(), tmp_path / "run")
    with pytest.raises(RunError, match=r"another recipe: optim\.lr was 0\.01, now 0\.5"):
        train(toy.recipe(optim__lr=0.5), run, resume=True)


def test_a_used_folder_is_rejected_and_unchanged(toy, tmp_path):
    (tmp_path / "precious.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(RunError, match="is not empty"):
        train(toy.recipe(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]


def test_best_weights_are_those_of_the_highest_score(toy, tmp_path, monkeypatch):
    scores, states = {3: 0.1, 6: 0.9, 9: 0.3, 12: 0.2}, {}

    def score(validation_loop, method, device, step):
        states[step] = {name: value.clone() for name, value in method.state_dict().items()}
        return Evaluation(step, scores[step], {})

    monkeypatch.setattr(trainer.ValidationLoop, "score", score)
    run = train(toy.recipe(data__held_out=2), tmp_path / "run")
    assert metrics(run)["best"]["step"] == 6
    torch.testing.assert_close(weights(run, "best"), states[6], rtol=0, atol=0)
    torch.testing.assert_close(weights(run, "last"), states[12], rtol=0, atol=0)


def test_scores_are_logged_but_choose_no_weights_if_the_last_are_the_best(
    toy, tmp_path, monkeypatch
):
    scores = {3: 0.1, 6: 0.9, 9: 0.3, 12: 0.2}

    def score(validation_loop, method, device, step):
        return Evaluation(step, scores[step], {})

    monkeypatch.setattr(trainer.ValidationLoop, "score", score)
    run = train(toy.recipe(data__held_out=2, run__best="last"), tmp_path / "run")
    assert [entry["score"] for entry in metrics(run)["history"]] == list(scores.values())
    assert metrics(run)["best"]["step"] == 12
    assert metrics(run)["best"]["reason"] == "best is last: run.best is last"
    torch.testing.assert_close(weights(run, "best"), weights(run), rtol=0, atol=0)


def test_without_held_out_images_the_last_weights_are_the_best(toy, tmp_path):
    run = train(toy.recipe(), tmp_path / "run")
    torch.testing.assert_close(weights(run, "best"), weights(run), rtol=0, atol=0)
    assert metrics(run)["best"] == {
        "step": 12,
        "score": None,
        "reason": "best is last: no images are held out",
    }


def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_log_line(toy, tmp_path, monkeypatch):
    monkeypatch.setenv("TOY_POISON_AT", "6")
    recipe = toy.recipe(run__save_every=4)
    with pytest.raises(
        RunError, match=r"loss 'classification' is nan at step 8 \(saved: state of step 4"
    ):
        train(recipe, tmp_path / "run")
    with pytest.raises(RunError, match=r"'classification' is nan at step 10 \(saved: nothing"):
        train(toy.recipe(run__save_every=0), tmp_path / "late")
    assert log_lines(tmp_path / "late")[-1]["losses"]["classification"] is None


def test_an_unreadable_image_is_reported_once(toy, tmp_path, capsys):
    train(toy.recipe(data__broken=3), tmp_path / "run")
    printed = capsys.readouterr().err
    assert printed.count("skipped 'train3': train3: is no image") == 1


def test_a_full_disk_gives_one_line_and_the_previous_state_is_intact(toy, tmp_path, run_toy):
    uninterrupted = train(toy.recipe(), tmp_path / "uninterrupted")
    run_toy(tmp_path / "resumed", TOY_SIGKILL_AT="4")
    done = run_toy(tmp_path / "resumed", "--resume", TOY_FILE_BYTES="30000")
    assert done.returncode == 2, done.stderr
    (line,) = done.stdout.splitlines()
    assert "state.safetensors: cannot be saved (File too large); the previous one is intact" in line
    assert "Traceback" not in done.stderr
    assert_same_run(train(toy.recipe(), tmp_path / "resumed", resume=True), uninterrupted)


def test_a_stage_without_its_earlier_networks_is_rejected_before_anything_is_written(toy, tmp_path):
    first = train(toy.recipe(), tmp_path / "first")
    staged = toy.recipe().model_copy(
        update={"earlier": {"cam": load_recipe(f"{first}/recipe.yaml")}}
    )
    with pytest.raises(RunError, match=r"the network of stage 'cam' is missing"):
        train(staged, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_starts_from_trained_networks_and_resumes_from_its_own_state(
    toy, tmp_path, monkeypatch
):
    first = train(toy.recipe(run__seed=5), tmp_path / "first")
    staged = toy.recipe().model_copy(
        update={"earlier": {"cam": load_recipe(f"{first}/recipe.yaml")}}
    )
    monkeypatch.setattr(
        toy.ToyMethod,
        "setup",
        lambda self, earlier: [
            self.load_state_dict(m.state_dict()) for m in earlier.methods.values()
        ],
    )
    uninterrupted = train(staged, tmp_path / "uninterrupted", earlier={"cam": first})
    assert not torch.equal(weights(uninterrupted)["late.weight"], weights(first)["late.weight"])
    alone = train(toy.recipe(), tmp_path / "alone")
    assert not torch.equal(weights(uninterrupted)["late.weight"], weights(alone)["late.weight"])
    monkeypatch.setenv("TOY_SIGTERM_AT", "6")
    with pytest.raises(RunError, match="stopped"):
        train(staged, tmp_path / "resumed", earlier={"cam": first})
    assert_same_run(train(staged, tmp_path / "resumed", resume=True), uninterrupted)


def test_a_recipe_with_stages_is_rejected(toy, tmp_path):
    stages = {"cam": StageConfig(run="train")}
    with pytest.raises(RecipeError, match="the recipe has stages"):
        train(toy.recipe().model_copy(update={"stages": stages}), tmp_path / "run")
