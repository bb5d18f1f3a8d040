import json
import os
import signal
import sys
import threading
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tag2mask.data.loader import batches
from tag2mask.errors import LostProcessError, MissingExtraError, StoppedError
from tag2mask.methods.build import build_method
from tag2mask.training.optimizer import build_optimizer
from tag2mask.training.runtime import Runtime, StopRequest

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")


@pytest.fixture
def open_runtime():
    """Open runtimes that are shut down again."""
    opened = []

    def open_one(precision="fp32"):
        opened.append(Runtime(precision))
        return opened[-1]

    yield open_one
    for runtime in opened:
        runtime.shutdown()


def prepared(toy, runtime, **changed):
    recipe = toy.recipe(method__calm=True, **changed)
    torch.manual_seed(0)
    method = build_method(recipe).train()
    runtime.prepare(method, lambda: build_optimizer(method, recipe.optim))
    source = toy.ToySource(recipe.data, "train")
    opened = batches(source, recipe.data, batch_size=recipe.optim.batch_size, seed=1, workers=0)
    return method, opened


def gradients(method):
    return {name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None}


def test_without_a_launcher_there_is_one_process(open_runtime):
    runtime = open_runtime()
    assert (runtime.rank, runtime.world, runtime.is_main) == (0, 1, True)
    assert runtime.gather("a") == ["a"]
    assert (runtime.largest(15), runtime.largest(0)) == (15, 0)


def test_missing_accelerate_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tag2mask\[train\]'"):
        Runtime("fp32")


def test_batches_that_share_a_step_give_the_gradient_of_one_large_batch(toy, open_runtime):
    runtime = open_runtime()
    method, opened = prepared(toy, runtime)
    first, second = next(opened), next(opened)
    both = replace(
        first,
        image=torch.cat([first.image, second.image]),
        tags=torch.cat([first.tags, second.tags]),
        valid=torch.cat([first.valid, second.valid]),
        name=(*first.name, *second.name),
    )
    runtime.backward(both, 9, share=1.0, last=True)
    expected = gradients(method)
    method.zero_grad()
    runtime.backward(first, 9, share=0.5, last=False)
    runtime.backward(second, 9, share=0.5, last=True)
    torch.testing.assert_close(gradients(method), expected)


def test_update_moves_the_weights_and_clears_the_gradients(toy, open_runtime):
    runtime = open_runtime()
    method, opened = prepared(toy, runtime)
    before = method.classifier.weight.detach().clone()
    losses = runtime.backward(next(opened), 0, share=1.0, last=True)
    assert not any(loss.requires_grad for loss in losses.values())
    assert runtime.update(None) is None
    assert not torch.equal(before, method.classifier.weight)
    assert gradients(method) == {}


def test_clipping_bounds_the_gradient_and_returns_its_norm(toy, open_runtime):
    runtime = open_runtime()
    method, opened = prepared(toy, runtime)
    runtime.backward(next(opened), 9, share=1.0, last=True)
    grads = gradients(method)
    total_norm = torch.linalg.vector_norm(torch.cat([grad.flatten() for grad in grads.values()]))
    clipped = {}
    runtime.optimizer.register_step_pre_hook(lambda *_: clipped.update(gradients(method)))
    norm = runtime.update(0.01)
    torch.testing.assert_close(norm, total_norm)
    clipped_norm = torch.linalg.vector_norm(
        torch.cat([grad.flatten() for grad in clipped.values()])
    )
    assert clipped_norm.item() == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)]
)
def test_precision_applies_to_the_forward_pass(toy, open_runtime, precision, dtype):
    runtime = open_runtime(precision)
    method, opened = prepared(toy, runtime)
    losses = runtime.backward(next(opened), 9, share=1.0, last=True)
    assert method.monitor["peak"].dtype is dtype
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {p.dtype for p in method.parameters()} == {torch.float32}


def test_shutdown_releases_the_optimizer(toy):
    runtime = Runtime("fp32")
    prepared(toy, runtime)
    runtime.shutdown()
    with pytest.raises(RuntimeError, match="no method prepared"):
        _ = runtime.optimizer


@pytest.fixture
def delivered():
    """Signals that the handler of the program itself receives."""
    found = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: found.append(number))
    yield found
    signal.signal(signal.SIGTERM, before)


def test_the_first_signal_is_recorded_and_the_second_kills(delivered):
    before = signal.getsignal(signal.SIGTERM)
    stop = StopRequest()
    with stop.catch_signals():
        assert stop.signal_number == 0
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal_number == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        assert delivered == []
    assert signal.getsignal(signal.SIGTERM) is before
    assert delivered == [signal.SIGTERM]  # the body ended by itself, so nothing else stopped


def test_a_signal_that_stopped_the_body_is_not_delivered_again(delivered):
    stop = StopRequest()

    def body():
        with stop.catch_signals():
            os.kill(os.getpid(), signal.SIGTERM)
            raise StoppedError("stopped", stop.signal_number)

    with pytest.raises(StoppedError):
        body()
    assert delivered == []


def test_a_launcher_may_repeat_its_signal(delivered, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    stop = StopRequest()
    with stop.catch_signals():
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
    assert delivered == [signal.SIGTERM]


def test_a_lost_connection_is_one_line_and_other_errors_stay(open_runtime):
    runtime = open_runtime()
    lost = RuntimeError("[/pair.cc:534] Connection closed by peer [127.0.0.1]:2017")

    def fail(error):
        with runtime.lost_peers_named():
            raise error

    with pytest.raises(RuntimeError, match="closed by peer"):
        fail(lost)  # one process has no peers
    runtime.world = 2
    with pytest.raises(LostProcessError, match=r"^process 0 of 2 lost the connection"):
        fail(lost)
    with pytest.raises(RuntimeError, match="shapes differ"):
        fail(RuntimeError("shapes differ"))
    runtime.world = 1


def test_other_threads_catch_no_signal():
    before = signal.getsignal(signal.SIGINT)
    handlers = []

    def body():
        with StopRequest().catch_signals():
            handlers.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_peak_memory_has_the_size_of_a_process_with_torch(open_runtime):
    assert 50 < open_runtime().peak_memory_mib() < 100_000


@pytest.mark.slow
def test_two_processes_train_two_stages_and_exit_cleanly(run_toy, tmp_path):
    done = run_toy(tmp_path, "stages=2", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "stage1" / "weights" / "last.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_images(run_toy, tmp_path, toy):
    from tag2mask.checkpoint import read_weights

    words = ("method__calm=1", "method__norm=1", "optim__max_grad_norm=0.5")
    run_toy(tmp_path / "one", *words, "optim__batch_size=4")
    done = run_toy(tmp_path / "two", *words, "optim__batch_size=2", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    one, _ = read_weights(tmp_path / "one" / "weights" / "last.safetensors")
    two, _ = read_weights(tmp_path / "two" / "weights" / "last.safetensors")
    torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_two_processes_resume_exactly(run_toy, tmp_path):
    assert run_toy(tmp_path / "uninterrupted", launcher=TORCHRUN).returncode == 0
    stopped = run_toy(tmp_path / "resumed", launcher=TORCHRUN, TOY_SIGTERM_AT="7")
    assert "resume with: tag2mask train --resume" in stopped.stdout, stopped.stderr
    done = run_toy(tmp_path / "resumed", "--resume", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    uninterrupted = load_file(tmp_path / "uninterrupted" / "weights" / "last.safetensors")
    again = load_file(tmp_path / "resumed" / "weights" / "last.safetensors")
    torch.testing.assert_close(again, uninterrupted, rtol=0, atol=0)


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_holds_up_nobody(run_toy, tmp_path):
    """It is replaced by the next one, in the batch of that process alone; all take every step."""
    done = run_toy(tmp_path, "data__broken=3", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "weights" / "last.safetensors").is_file()


@pytest.mark.slow
def test_a_killed_process_is_restarted_from_the_last_checkpoint(run_toy, tmp_path):
    assert run_toy(tmp_path / "uninterrupted", launcher=TORCHRUN).returncode == 0
    launcher = (*TORCHRUN, "--max-restarts", "1")
    done = run_toy(tmp_path / "killed", launcher=launcher, TOY_SIGKILL_AT="7", TOY_RANK="1")
    assert done.returncode == 0, done.stderr
    log = (tmp_path / "killed" / "log.jsonl").read_text().splitlines()
    starts = [record for line in log if "event" in (record := json.loads(line))]
    assert [(one["event"], one["step"]) for one in starts] == [("start", 0), ("resume", 6)]
    uninterrupted = load_file(tmp_path / "uninterrupted" / "weights" / "last.safetensors")
    again = load_file(tmp_path / "killed" / "weights" / "last.safetensors")
    torch.testing.assert_close(again, uninterrupted, rtol=0, atol=0)


@pytest.mark.slow
def test_processes_with_different_recipes_stop_before_anything_is_written(run_toy, tmp_path, toy):
    script = (
        'import os, sys; sys.argv.append("optim__lr=0.0" + os.environ["RANK"] + "1"); '
        f"import runpy; runpy.run_path({toy.__file__!r}, run_name='__main__')"
    )
    path = tmp_path / "different.py"
    path.write_text(script)
    out = tmp_path / "run"
    done = run_toy(out, launcher=(*TORCHRUN, str(path)), script=())
    assert "the processes of rank 1 have other recipes" in done.stdout
    assert not out.exists()


@pytest.mark.slow
def test_all_processes_stop_on_a_loss_that_is_not_finite(run_toy, tmp_path):
    done = run_toy(tmp_path / "run", launcher=TORCHRUN, TOY_POISON_AT="6")
    assert done.stdout.splitlines().count(done.stdout.splitlines()[0]) == 2
    assert "loss 'classification' is nan at step 9" in done.stdout
    assert done.stderr.count("exitcode  : 2") == 2 or "exitcode: 2" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(6))
def test_exit_is_clean_every_time(run_toy, tmp_path, attempt):
    done = run_toy(tmp_path, "stages=2", launcher=TORCHRUN)
    assert done.returncode == 0, done.stderr
