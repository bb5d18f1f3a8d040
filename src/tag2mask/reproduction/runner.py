"""Train and score the planned rows of a table; finished parts are skipped, interrupted ones resume.

The folder of results contains `runs/` with the run folders, and `scores/` with one file per row
and seed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict

from tag2mask import plugins
from tag2mask.checkpoint import versions
from tag2mask.data.base import Source
from tag2mask.errors import RunError
from tag2mask.evaluation.mask_scores import report_at_chosen, score_masks
from tag2mask.inference.candidate_masks import SLOW_KINDS
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.files import write_text
from tag2mask.io.json_files import FileSchema, read_object
from tag2mask.io.run_files import read_metrics
from tag2mask.pipeline import train
from tag2mask.reproduction.plan import PlannedRow
from tag2mask.training.run_folder import RunFolder

MAX_THRESHOLD_IMAGES = 1500
"""Largest number of images that choose a threshold: more than VOC's `train`, a part of COCO's."""
Notify = Callable[[str], object]
Scores = dict[str, Any]
"""Content of one file of scores."""


class _Machine(FileSchema):
    """What the times were measured on."""

    device: str


class _ScoresFile(FileSchema):
    """What a file of scores must contain."""

    classes: list[str]
    seconds: dict[str, float]
    machine: _Machine
    images: dict[str, int]
    scores: dict[str, dict[str, dict[str, dict[str, Any]]]]


class _Spent(FileSchema):
    """Seconds by stage."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs planned rows in one folder of results."""

    out: Path
    limit: int | None = None
    """Largest number of images of each list; None for all."""
    notify: Notify = lambda line: None
    """Receives one line of text about each part."""

    def run_folder(self, plan: PlannedRow) -> Path:
        """Return the folder that a row trains in."""
        return self.out / "runs" / plan.run_name

    def scores_file(self, plan: PlannedRow) -> Path:
        """Return the file that receives the scores of a row."""
        return self.out / "scores" / plan.scores_name(self.limit)

    def read_scores(self, plan: PlannedRow) -> Scores | None:
        """Return the scores of a row; None if it is not finished."""
        path = self.scores_file(plan)
        if not path.is_file():
            return None
        return read_object(path, _ScoresFile, RunError, advice="remove it to score the row again")

    def finish(self, plan: PlannedRow) -> Scores:
        """Train and score one row.

        Returns:
            Its scores by list, class source and kind of mask; the seconds of every stage.

        Raises:
            RunError: If the training stops; the next call resumes.
            DataError: If the data cannot be used.
            WeightsError: If the backbone's weights cannot be used.
        """
        if (scores := self.read_scores(plan)) is not None:
            self.notify("finished, skipped")
            return scores
        run = self.run_folder(plan)
        self._train(plan, run)
        start = time.perf_counter()
        by_list = self._score(plan, run)
        seconds = {**self._training_seconds(plan, run), "evaluation": time.perf_counter() - start}
        scores = {
            "run": plan.run_name,
            "command": plan.train_command(Path("RUN")),
            "seconds": seconds,
            "machine": machine(),
            **versions(),
            "limit": self.limit,
            **by_list,
        }
        write_text(self.scores_file(plan), json.dumps(scores, indent=1) + "\n")
        return scores

    def _train(self, plan: PlannedRow, run: Path) -> None:
        """Run every stage that the row needs, and record the time of those that label."""
        command = plan.train_command(run)
        if not plan.stages and RunFolder(run).is_finished:
            self.notify("trained before, skipped")
            return
        for stage in plan.stages or (None,):
            resume = (run / "recipe.yaml").is_file()
            with self._recorded(run, stage):
                train(
                    plan.recipe,
                    run,
                    resume=resume,
                    stage=stage,
                    command=command,
                    notify=self.notify,
                )

    @contextmanager
    def _recorded(self, run: Path, stage: str | None) -> Iterator[None]:
        """Add the time of one attempt to the record of a run, also of an interrupted attempt."""
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = _read_spent(run)
            name = stage or "train"
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - start
            write_text(_spent_file(run), json.dumps(spent, indent=1) + "\n")

    def _training_seconds(self, plan: PlannedRow, run: Path) -> dict[str, float]:
        """Return the seconds of training and of labeling, summed over stages.

        Training steps count from the run's own metrics, which survive a killed process.
        """
        spent = _read_spent(run)
        seconds = {"training": 0.0, "labeling": 0.0}
        for stage in plan.stages or (None,):
            if stage is not None and plan.recipe.stages[stage].run != "train":
                seconds["labeling"] += spent.get(stage, 0.0)
                continue
            metrics = RunFolder(run / (stage or "")).metrics
            seconds["training"] += read_metrics(metrics).get("seconds", 0.0)
        return seconds

    def _score(self, plan: PlannedRow, run: Path) -> Scores:
        """Score the last weights on both lists, each at the thresholds that the other one chose.

        The weights are the last ones because the best ones may have been chosen on a scored list.
        """
        settings = plan.settings
        folder = run / (plan.stage or "")
        segmenter = Segmenter.load(folder, "last", configure=plan.inference_recipe)
        slow = [kind for kind in SLOW_KINDS if kind == settings.masks]
        found = {}
        for name in (settings.threshold_split, settings.split):
            self.notify(f"scoring {list_name(name)}")
            found[name] = score_masks(
                segmenter,
                _open_list(segmenter, plan, name),
                slow_kinds=slow,
                limit=self._limit_of(name, settings.split),
                notify=self.notify,
            )
        pairs = (settings.split, settings.threshold_split)
        return {
            "classes": list(segmenter.class_names),
            "images": {list_name(name): found[name]["tags"].images for name in pairs},
            "scores": {
                list_name(reported): {
                    source: {
                        kind: asdict(score)
                        for kind, score in report_at_chosen(found[chosen][source], scores).items()
                    }
                    for source, scores in found[reported].items()
                }
                for chosen, reported in (pairs[::-1], pairs)
            },
        }

    def _limit_of(self, name: str, reported: str) -> int | None:
        """Return the largest number of images of a list."""
        if name == reported:
            return self.limit
        return min(self.limit or MAX_THRESHOLD_IMAGES, MAX_THRESHOLD_IMAGES)


def machine() -> dict[str, Any]:
    """Return what the times depend on: device, processors, threads."""
    on_gpu = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def list_name(split: str) -> str:
    """Return the name of a list as a reader knows it: `train.txt` is the list `train`."""
    return split.removesuffix(".txt")


def _open_list(segmenter: Segmenter, plan: PlannedRow, name: str) -> Source:
    """Open a list of images with the classes of a trained network."""
    update = {"root": plan.recipe.data.root, "labels": None}
    config = segmenter.recipe.data.model_copy(update=update)
    source: Source = plugins.load("data", config.name)(config, name)
    return source


def _spent_file(run: Path) -> Path:
    """Return the file beside a run folder with the seconds of each of its stages."""
    return run.with_name(f"{run.name}.seconds.json")


def _read_spent(run: Path) -> dict[str, float]:
    path = _spent_file(run)
    if not path.is_file():
        return {}
    return read_object(path, _Spent, RunError, advice="remove it to count the time anew")
