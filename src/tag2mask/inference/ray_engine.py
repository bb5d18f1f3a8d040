"""Label the shards of a job on a Ray cluster: the same unit of work as `--shard`, in actors.

Each actor loads the network once and then labels one shard after another. Ray starts a dead actor
again and repeats its shard, which skips the masks that are already there. Images, run and masks are
on a disk that all machines share, under the same path.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tag2mask.errors import MissingExtraError, RunError, Tag2MaskError
from tag2mask.inference.jobs import Job
from tag2mask.inference.open_job import OpenJob
from tag2mask.inference.shards import Shard
from tag2mask.inference.writer import WriteSummary, progress

IMAGES_PER_SHARD = 200
"""Without a number of shards: few enough that a dead actor costs little time."""


def write_on_ray(job: Job, opened: OpenJob, shards: int | None, actors: int) -> WriteSummary:
    """Write the masks of a job on Ray Data, and merge all shards.

    Joins the cluster that the environment variable RAY_ADDRESS names, else starts one on this
    machine. Finished shards are skipped.

    Args:
        job: What to label.
        opened: The same, with its images.
        shards: Number of shards; None: one per `IMAGES_PER_SHARD` images.
        actors: Number of actors, each with a network; on a cluster with GPUs each takes one.

    Raises:
        MissingExtraError: If Ray is not installed.
        RunError: If Ray cannot do the work, or a shard fails.
    """
    count = shards or max(actors, math.ceil(len(opened.names) / IMAGES_PER_SHARD))
    left = opened.merge(count)
    written, unreadable = 0, []
    if left:
        with _cluster(), progress() as bar:
            task = bar.add_task("shards", total=count, completed=count - len(left))
            for done in _label_shards(_absolute(job), left, count, actors):
                if done["error"]:
                    raise RunError(f"shard {done['shard']} of {count}: {done['error']}")
                written += done["written"]
                unreadable += list(done["unreadable"])
                bar.advance(task)
        left = opened.merge(count)
    masks = opened.summarize()
    return WriteSummary(
        written, masks.images - written, tuple(unreadable), masks, unfinished=tuple(left)
    )


class ShardActor:
    """Labels shards of one job with one network.

    Args:
        job: With absolute paths.
        count: Number of shards.
    """

    def __init__(self, job: Job, count: int) -> None:
        self._job, self._count = job, count
        self._opened: OpenJob | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Label the shard whose number is in `row`; a user's mistake comes back as its text."""
        result = {"shard": row["shard"], "written": 0, "unreadable": [], "error": ""}
        try:
            if self._opened is None:
                self._opened = self._job.open()
            summary = self._opened.write(Shard(int(row["shard"]), self._count))
        except Tag2MaskError as error:
            return result | {"error": str(error)}
        return result | {"written": summary.written, "unreadable": list(summary.unreadable)}


def _label_shards(
    job: Job, numbers: Sequence[int], count: int, actors: int
) -> Iterator[dict[str, Any]]:
    """Yield the result of each shard as it is done."""
    import ray
    from ray.data import ActorPoolStrategy, DataContext, from_items
    from ray.exceptions import RayError

    context = DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.execution_options.preserve_order = False
    resources = ray.cluster_resources()
    on_gpu = job.device != "cpu" and "GPU" in resources
    most = min(actors, len(numbers))
    pool = ActorPoolStrategy(
        min_size=1,
        max_size=most,
        initial_size=max(1, min(most, int(resources.get("GPU" if on_gpu else "CPU", 1)))),
        max_tasks_in_flight_per_actor=1,
    )
    rows = from_items([{"shard": number} for number in numbers], override_num_blocks=len(numbers))
    done = rows.map(
        ShardActor,
        fn_constructor_args=(job, count),
        compute=pool,
        num_cpus=None if on_gpu else 1,
        num_gpus=1 if on_gpu else None,
    )
    try:
        yield from done.iter_rows()
    except RayError as error:
        reason = " ".join(str(error).split())[-300:]
        raise RunError(f"Ray cannot label the shards: {reason}") from error


@contextmanager
def _cluster() -> Iterator[None]:
    """Join a cluster, or start one; it ends with the body, unless it was there before."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtraError("scale") from error
    if ray.is_initialized():
        yield
        return
    try:
        ray.init(logging_level="error", log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise RunError(
            f"Ray does not start ({reason}); RAY_ADDRESS must name a running cluster, or be empty "
            "to start one here"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _absolute(job: Job) -> Job:
    """Make the paths of a job absolute: actors work in other folders."""
    run = str(Path(job.run).absolute()) if Path(job.run).exists() else job.run
    changed: dict[str, Any] = {"run": run, "out": job.out.absolute()}
    for name in ("data", "images", "listed"):
        value = getattr(job, name, None)
        if isinstance(value, Path):
            changed[name] = value.absolute()
        elif value is not None:
            changed[name] = tuple(path.absolute() for path in value)
    return replace(job, **changed)
