"""Tune a run folder: open its network and some tagged images, choose, write the choice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tag2mask.checkpoint import stage_folder
from tag2mask.config.recipe import Recipe
from tag2mask.errors import RunError
from tag2mask.evaluation.tuning import Tuning, tune_segmenter
from tag2mask.inference.run import Which
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.tagged_folder import open_source
from tag2mask.inference.tuned import undo_tuned, write_tuned


def tune(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    limit: int | None = 100,
    crf: bool = False,
    dry_run: bool = False,
    which: Which = "best",
    device: str = "auto",
    notify: Callable[[str], object] = lambda line: None,
) -> Tuning:
    """Choose thresholds and refiner of a run on a few true masks, or by agreement without any.

    The choice goes into `tune.json` of the run, which everything that loads the run reads. Every
    call starts from the values that the run was trained with.

    Args:
        run: Run folder.
        data: Folder of tagged images, of which some or all have a true mask.
        split: Name of a list or part; None: see `label`.
        limit: Largest number of images, spread evenly; None: all.
        crf: Also compare the dense CRF; slow.
        dry_run: Write nothing.
        which: Weights of the run to use.
        device: Where the network runs.
        notify: Receives a line of progress now and then.

    Raises:
        DataError: If the folder or its tags cannot be used.
        RunError: If the run is missing, has no weights or cannot be written to.
    """
    folder = stage_folder(Path(run), "train")
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder; tune writes its choice into a folder")
    trained: list[Recipe] = []

    def as_trained(recipe: Recipe) -> Recipe:
        trained.append(undo_tuned(recipe, folder))
        return trained[-1]

    segmenter = Segmenter.load(run, which, device=device, configure=as_trained)
    source, part = open_source(segmenter.recipe, Path(data), split, {})
    if segmenter.recipe.data.true_masks == "train" and split is None:
        notify(
            "warning: this run learned from true masks, and masks that it knows make every setting "
            "look good; name other images with --split"
        )
    tuning = tune_segmenter(segmenter, source, limit=limit, slow=crf, notify=notify)
    if not dry_run:
        record = {**tuning.record(), "data": str(data), "split": part, **segmenter.origin}
        write_tuned(folder, trained[-1], tuning.changes, record)
    return tuning
