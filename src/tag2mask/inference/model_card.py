"""The model card of a run: data, classes, scores with their class source, limits, licenses."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from tag2mask.config.recipe import Recipe
from tag2mask.version import __version__

SCORE_KEYS = ("class_names", "iou", "miou", "images", "class_source")
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
    scores = {path.name: _read(path) for path in sorted(folder.glob("*.json"))}
    found = {name: values for name, values in scores.items() if _is_score(values)}
    best = _read(folder / "metrics.json").get("best") or {}
    for evaluation in _read(folder / "metrics.json").get("history", []):
        detail = evaluation.get("detail")
        if evaluation.get("step") == best.get("step") and _is_score(detail):
            found["held-out images during training"] = detail
    return Facts(weights_license, found, _start(folder / "log.jsonl"))


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


def _scores(scores: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table per set of scores, or say that there are none."""
    if not scores:
        return "None were computed: no true masks. Inspect the masks by eye before you use them."
    return "\n\n".join(_score_table(title, score) for title, score in scores.items())


def _score_table(title: str, score: Mapping[str, Any]) -> str:
    source = CLASS_SOURCES.get(score["class_source"] or "", "unknown class source")
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


def _is_score(values: object) -> bool:
    return isinstance(values, Mapping) and all(key in values for key in SCORE_KEYS)


def _read(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty if there is none."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _start(log: Path) -> dict[str, Any]:
    """Read the record of a run's start; empty if there is none."""
    if not log.is_file():
        return {}
    for line in log.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("event") == "start":
            return record
    return {}
