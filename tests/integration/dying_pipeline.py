"""A pipeline in a process of its own that a kill ends at a given point.

Processes come from a fork server that has imported everything once, so that each takes a second.
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
from tag2mask.training.trainer import _Training

KILLED = -signal.SIGKILL


def run(words: Sequence[str], death: tuple[str, int] | None = None) -> int:
    """Run one command of the program; returns its exit code.

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
    """Kill this process in a stage: after a step, in the midst of writing a mask or the scores."""

    def due(folder: Path, done: int) -> None:
        if folder.name == stage and done == count:
            os.kill(os.getpid(), signal.SIGKILL)

    advance, save = _Training._advance, writer.save_mask
    report = pipeline.save_report
    seen: list[Path] = []

    def advanced(training, *words):
        advance(training, *words)
        due(training._folder.root, training._step)

    def saved(mask, path):
        due(path.parent, len(seen))  # the scores of its image are written already
        seen.append(path)
        save(mask, path)

    def reported(scores, path):
        due(path.parent, 0)
        report(scores, path)

    _Training._advance, writer.save_mask, pipeline.save_report = advanced, saved, reported
