"""Run a pipeline in a separate process that kills itself at a given point.

The processes come from a fork server that has imported everything once, so each takes a second.
"""

import multiprocessing
import os
import signal
from collections.abc import Sequence
from pathlib import Path

import torch

from tag2mask import pipeline
from tag2mask.cli.main import main
from tag2mask.inference import writer
from tag2mask.training.trainer import _TrainingRun

KILLED = -signal.SIGKILL


def run(words: Sequence[str], death: tuple[str, int] | None = None) -> int:
    """Run one command of the program; return its exit code.

    Args:
        words: What follows `tag2mask`.
        death: Stage, and after how many of its steps or masks the process is killed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_run, args=(words, death, torch.get_num_threads()))
    process.start()
    process.join(300)
    return process.exitcode


def _run(words: Sequence[str], death: tuple[str, int] | None, threads: int) -> None:
    torch.set_num_threads(threads)  # sums depend on their number
    if death is not None:
        _die_at(*death)
    raise SystemExit(main(words))


def _die_at(stage: str, count: int) -> None:
    """Kill this process in a stage: after a step, while it writes a mask or the scores."""

    def due(folder: Path, done: int) -> None:
        if folder.name == stage and done == count:
            os.kill(os.getpid(), signal.SIGKILL)

    train_step, save = _TrainingRun._train_step, writer.save_mask
    report = pipeline.save_report
    saved_paths: list[Path] = []

    def step_then_die(training, *words):
        train_step(training, *words)
        due(training._folder.root, training._step)

    def die_or_save(mask, path):
        due(path.parent, len(saved_paths))  # the scores of the image are already written
        saved_paths.append(path)
        save(mask, path)

    def die_or_report(scores, path):
        due(path.parent, 0)
        report(scores, path)

    _TrainingRun._train_step, writer.save_mask, pipeline.save_report = (
        step_then_die,
        die_or_save,
        die_or_report,
    )
