"""The model card of a run: data, classes, scores with their class source, limits, licenses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from tag2mask.config.recipe import Recipe
from tag2mask.errors import DataError, RunError
from tag2mask.inference.tuned import TUNE_FILE
from tag2mask.io.json_files import read_object
from tag2mask.io.run_files import Score, is_score, read_log, read_metrics
from tag2mask.version import __version__

CLASS_SOURCES = {
    "classifier": "classes from the classifier, as for new images",
    "tags": "classes from the true tags; not comparable with scores of the classifier",
}
LIMITS = """\
- Masks were learned from image-level tags, not from drawn masks. Borders are approximate, and thin
  or small objects are often missed or too large.
- What always appears together with a class (water under a boat) can become part of its mask.
- Only the classes above exist for this model; everything else is background.
- A mask does not say how certain it is. Check a sample before you rely on it."""


NO_BACKGROUND_LIMIT = (
    "everything else is background.",
    "each pixel gets one of them, whatever it shows.",
)
"""A sentence of `LIMITS`, and what it says of a model without background."""


class Facts(NamedTuple):
    """What is known about a run beside its recipe."""

    weights_license: str
    """License of the pretrained weights of the backbone."""
    scores: Mapping[str, Mapping[str, Any]]
    """Title -> scores, as `tag2mask evaluate --json` writes them."""
    start: Mapping[str, Any]
    """First record of the log: command, seed, versions; empty if unknown."""
    tuned: Mapping[str, Any] = {}
    """What the settings rest on that `tune` chose; empty if it chose none."""


def read_facts(origin: Mapping[str, str], weights_license: str) -> Facts:
    """Read scores and command from the run folder that weights were loaded from, if it is here.

    Args:
        origin: `run`, as `open_run` returns them; may be empty.
        weights_license: See `Facts`.
    """
    run = origin.get("run")
    folder = Path(run) if run else None
    if folder is None or not folder.is_dir():
        return Facts(weights_license, {}, {})
    found = {}
    for path in sorted(folder.glob("*.json")):
        with suppress(DataError):  # other files of the run
            found[path.name] = read_object(path, Score)
    for evaluation in _read_history(folder / "metrics.json"):
        found["held-out images during training"] = evaluation["detail"]
    starts = (record for record in read_log(folder / "log.jsonl") if record.get("event") == "start")
    return Facts(weights_license, found, next(starts, {}), _read_tuned(folder / TUNE_FILE))


def model_card(recipe: Recipe, facts: Facts) -> str:
    """Return the README.md of a model, with the metadata that the hub reads."""
    names = ", ".join(recipe.data.classes)
    parts = [
        f"---\n{_metadata(facts)}\n---",
        f"# Segmentation of {names}",
        f"Pixel masks of {len(recipe.data.classes)} classes, learned from image-level tags with "
        f"[tag2mask](https://pypi.org/project/tag2mask) {__version__}: method "
        f"`{recipe.method.name}`, backbone `{recipe.backbone.name}`.",
        "## Classes",
        _classes(recipe),
        "## Use",
        '```python\nimport tag2mask\n\nsegmenter = tag2mask.Segmenter.from_pretrained("OWNER/NAME")'
        '\nprediction = segmenter.predict("image.jpg")  # prediction.mask: (H, W) uint8\n```',
        "## Training",
        _training(recipe, facts.start),
        "## Settings of the masks",
        _mask_settings(recipe, facts.tuned),
        "## Scores",
        _scores(facts.scores),
        "## Limits",
        LIMITS if recipe.predict.has_background else LIMITS.replace(*NO_BACKGROUND_LIMIT),
        "## License",
        f"License of the pretrained weights of the backbone: **{facts.weights_license}**. It also "
        "binds this model, which contains them in changed form. The owner of this model and of its "
        "training images states the other terms.",
    ]
    return "\n\n".join(parts) + "\n"


def _classes(recipe: Recipe) -> str:
    """List the mask values."""
    lines = [f"{value}. {name}" for value, name in enumerate(recipe.data.classes, start=1)]
    if recipe.predict.has_background:
        lines.insert(0, "0. background")
    return "\n".join(lines)


def _metadata(facts: Facts) -> str:
    """Return the YAML header; a score's dataset name says where its classes come from."""
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="own-images",
            dataset_name=f"{title}: classes from {score['class_source'] or 'unknown'}",
            metric_type="mean_iou",
            metric_value=round(score["miou"], 4),
        )
        for title, score in facts.scores.items()
        if score["miou"] is not None
    ]
    more: dict[str, Any] = {"model_name": "tag2mask", "eval_results": results} if results else {}
    data = ModelCardData(
        library_name="tag2mask",
        pipeline_tag="image-segmentation",
        tags=["tag2mask", "weakly-supervised", "semantic-segmentation"],
        **more,
    )
    return str(data.to_yaml())


def _training(recipe: Recipe, start: Mapping[str, Any]) -> str:
    """List what the network learned from, and how."""
    optim = recipe.optim
    lines = [
        f"- Data: source `{recipe.data.name}`; the images are not part of this model.",
        f"- {optim.steps:,} steps of {optim.batch_size * optim.accumulate_steps} crops of "
        f"{recipe.data.crop_px} px, seed {recipe.run.seed}; `recipe.yaml` has all settings.",
    ]
    if start.get("command"):
        lines.append(f"- Command: `{_without_folders(start['command'])}`")
    versions = start.get("versions")
    if isinstance(versions, Mapping):
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        lines.append(f"- Versions: {listed}")
    return "\n".join(lines)


def _mask_settings(recipe: Recipe, tuned: Mapping[str, Any]) -> str:
    """List the thresholds and the refiner that the model uses, and who chose them."""
    predict = recipe.predict
    background = "chosen for each image (Otsu)"
    if predict.background_rule == "fixed":
        default = "the default of the method"
        background = default if predict.background is None else f"{predict.background:g}"
    refiner = "none" if recipe.refiner is None or predict.refine is False else recipe.refiner.name
    lines = [
        f"- Background score: {background}",
        f"- Class threshold: {predict.class_threshold:g}",
        f"- Refiner: `{refiner}`",
    ]
    if tuned:
        by = "by their true masks" if tuned.get("by") == "masks" else "without true masks"
        lines.append(
            f"- Chosen after training by `tag2mask tune` on {len(tuned.get('images', ()))} images, "
            f"{by}; the scores below may have been measured before"
        )
    return "\n".join(lines)


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table per set of scores, or say that there are none."""
    if not scores:
        return "None were computed: no true masks. Inspect the masks by eye before you use them."
    return "\n\n".join(_score_table(title, score) for title, score in scores.items())


def _score_table(title: str, score: Mapping[str, Any]) -> str:
    source = CLASS_SOURCES.get(score.get("class_source") or "", "unknown class source")
    names: Sequence[str] = ("background", *score["class_names"])
    rows = [f"| {name} | {_percent(iou)} |" for name, iou in zip(names, score["iou"], strict=True)]
    return "\n".join(
        [
            f"**{title}**: {score['images']} images, {source}.",
            "",
            "| class | IoU |",
            "| --- | --- |",
            *rows,
            f"| **mean** | **{_percent(score['miou'])}** |",
        ]
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def _without_folders(command: str) -> str:
    """Shorten absolute paths in a command to their last part."""
    words = command.split(" ")
    return " ".join(
        f"{word[: word.index('/')]}{Path(word).name}" if _has_path(word) else word for word in words
    )


def _has_path(word: str) -> bool:
    return word.startswith("/") or "=/" in word


def _read_history(path: Path) -> list[dict[str, Any]]:
    """Return the evaluations of the best weights on true masks; empty without a readable file."""
    try:
        metrics = read_metrics(path)
    except RunError:
        return []
    best = (metrics.get("best") or {}).get("step")
    return [
        evaluation
        for evaluation in metrics.get("history", ())
        if evaluation["step"] == best and is_score(evaluation.get("detail"))
    ]


def _read_tuned(path: Path) -> Mapping[str, Any]:
    """Read what the choice of `tune` rests on; empty if it chose nothing."""
    try:
        values = read_object(path)
    except DataError:
        return {}
    record = values.get("record")
    return record if values.get("chosen") and isinstance(record, Mapping) else {}
