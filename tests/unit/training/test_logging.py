import io
import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from tag2mask.errors import RunError
from tag2mask.training.logging import (
    LossWindow,
    MetricLogger,
    host_values,
    merged_means,
    replace_non_finite,
    truncate_log,
)


def logger(folder, *, terminal=False, is_main=True, start=0):
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120)
    opened = MetricLogger(
        folder / "log.jsonl",
        tensorboard=folder / "tensorboard",
        steps=10,
        start=start,
        is_main=is_main,
        console=console,
    )
    return opened, text


def test_window_sums_and_counts_each_loss():
    window = LossWindow()
    window.add({"a": torch.tensor(1.0), "b": torch.tensor(5.0)})
    window.add({"a": torch.tensor(2.5)})
    assert window.read() == {"a": (3.5, 2), "b": (5.0, 1)}
    window.clear()
    assert window.read() == {}


def test_window_is_restored_exactly_after_json():
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    uninterrupted, restored = LossWindow(), LossWindow()
    for value in values:
        uninterrupted.add({"a": value})
        restored.add({"a": value})
        totals = json.loads(json.dumps(restored.read()))
        restored = LossWindow()
        restored.restore(totals, torch.device("cpu"))
    assert restored.read() == uninterrupted.read()


def test_adding_does_not_change_the_tensor_of_the_caller():
    window, loss = LossWindow(), torch.tensor(1.0)
    window.add({"a": loss})
    window.add({"a": loss})
    assert loss.item() == 1.0


def test_means_weight_all_terms_of_all_processes_equally():
    parts = [{"a": (6.0, 3)}, {"a": (4.0, 1), "b": (2.0, 2)}]
    assert merged_means(parts) == {"a": 2.5, "b": 1.0}


def test_host_values_takes_empty_mappings_and_any_shape():
    assert host_values({}) == {}
    assert host_values({"a": torch.ones(1, 1), "b": torch.tensor(2)}) == {"a": 1.0, "b": 2.0}


def test_json_contains_no_nan():
    assert replace_non_finite({"a": [math.nan, (1.0, math.inf)], "b": "nan"}) == {
        "a": [None, [1.0, None]],
        "b": "nan",
    }


def test_truncation_removes_later_steps_and_an_incomplete_line(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"seed": 1}\n{"step": 5}\n{"step": 10}\n{"st', encoding="utf-8")
    truncate_log(log, 5)
    assert log.read_text(encoding="utf-8") == '{"seed": 1}\n{"step": 5}\n'


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_log_that_is_a_pipe_or_a_broken_link_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("pipe", "link"):
        with pytest.raises(RunError, match="is not a regular file; remove it"):
            truncate_log(tmp_path / name, 5)
    truncate_log(tmp_path / "absent", 5)
    assert not (tmp_path / "absent").exists()


def test_log_lines_are_json_and_are_appended(tmp_path):
    for _ in range(2):
        with logger(tmp_path)[0] as opened:
            opened.write_record({"step": 1, "loss": math.nan})
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [{"step": 1, "loss": None}] * 2


def test_only_the_first_process_writes_and_prints(tmp_path):
    opened, text = logger(tmp_path, is_main=False)
    with opened:
        opened.write_record({"step": 1})
        opened.print_line("hello")
        opened.show_progress(1, "loss 1")
    assert (list(tmp_path.iterdir()), text.getvalue()) == ([], "")


def test_without_a_terminal_each_log_step_is_a_plain_line(tmp_path):
    opened, text = logger(tmp_path)
    with opened:
        opened.advance(4, {})
        opened.show_progress(5, "loss 0.5")
    (line,) = text.getvalue().splitlines()
    assert line.startswith("step 5/10  loss 0.5  0:00:0")
    assert "\x1b" not in line


def test_on_a_terminal_the_progress_bar_shows_count_and_loss(tmp_path):
    opened, text = logger(tmp_path, terminal=True, start=2)
    with opened:
        opened.show_progress(5, "loss 0.5  9.0 images/s")
    assert "5/10" in text.getvalue()
    assert "9.0 images/s" in text.getvalue()


def test_tensorboard_receives_the_scalars(tmp_path):
    opened, _ = logger(tmp_path)
    with opened:
        opened.write_scalars({"loss/total": 0.5}, 3)
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss/total" in events.read_bytes()


def test_missing_tensorboard_is_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    opened, _ = logger(tmp_path)
    with opened:
        opened.write_scalars({"loss": 0.5}, 3)
        opened.write_record({"step": 3})
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_full_disk_gives_one_line(tmp_path):
    opened, _ = logger(tmp_path)
    opened._log = Path("/dev/full")
    with opened, pytest.raises(RunError, match=r"cannot be written.*No space left"):
        opened.write_record({"step": 1})
