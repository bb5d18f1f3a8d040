"""The parts of the report page, each as HTML text; empty where there is nothing to show."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tag2mask import plugins
from tag2mask.config.recipe import Recipe
from tag2mask.data.base import Source
from tag2mask.errors import Tag2MaskError
from tag2mask.io.palette import voc_palette
from tag2mask.report.figures import line_chart
from tag2mask.report.network_parts import Picture
from tag2mask.report.run_parts import Values

SETTINGS_SHOWN = (
    "split",
    "protocol",
    "scales",
    "flip",
    "long_side_px",
    "max_side_px",
    "background",
    "class_threshold",
    "fallback",
    "propagate",
    "refiner",
    "crf",
    "weights",
    "limit",
)
"""Settings of a score that must be known to compare it, in this order."""


def picture_row(pictures: Sequence[Picture], told: str = "") -> str:
    """PNG files as pictures that are part of the page, below a line that says what they are."""
    shown = []
    for picture in pictures:
        data = base64.b64encode(picture.png).decode("ascii")
        name = escape(picture.name)
        shown.append(
            f'<div class="strip"><img alt="{name}" src="data:image/png;base64,{data}"></div>'
        )
    return (
        f'<p class="told">{escape(told)}</p><div class="strips">{"".join(shown)}</div>'
        if shown
        else ""
    )


def class_table(scores: Mapping[str, Values]) -> str:
    """IoU of each class, one column per report, and below what each was made with."""
    if not scores:
        return ""
    names = list(
        dict.fromkeys(n for s in scores.values() for n in ("background", *s["class_names"]))
    )
    head = "".join(
        f"<th>{escape(title)}<br><small>{escape(gate_of(score))}</small></th>"
        for title, score in scores.items()
    )
    rows = []
    for value, name in enumerate(names):
        color = "rgb({},{},{})".format(*voc_palette()[value].tolist())
        swatch = f'<i class="swatch" style="background:{color}"></i>'
        rows.append(f"<tr><th>{swatch}{escape(name)}</th>{_row(scores, name)}</tr>")
    means = "".join(_score_cell(score["miou"]) for score in scores.values())
    told = "".join(
        f"<li><b>{escape(title)}</b>: {escape(_settings(score))}</li>"
        for title, score in scores.items()
    )
    return (
        f'<div class="wide"><table><thead><tr><th>IoU in %</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody><tfoot><tr><th>mean</th>{means}</tr></tfoot></table></div>"
        f'<ul class="settings">{told}</ul>'
    )


def _row(scores: Mapping[str, Values], name: str) -> str:
    cells = []
    for score in scores.values():
        by_name = dict(zip(("background", *score["class_names"]), score["iou"], strict=False))
        cells.append(_score_cell(by_name.get(name)))
    return "".join(cells)


def _score_cell(value: float | None) -> str:
    if value is None:
        return "<td>-</td>"
    return f'<td style="--share:{100 * value:.1f}%">{percent(value)}</td>'


def _settings(score: Values) -> str:
    """What must be known to compare a score, in words."""
    settings = score.get("settings", {})
    parts = [f"{score['images']:,} images", gate_of(score)]
    for key in SETTINGS_SHOWN:
        value = settings.get(key)
        if isinstance(value, dict):
            value = value.get("name")
        if key == "refiner" and key in settings and value is None:
            value = "none"
        if value is not None:
            parts.append(f"{key.removesuffix('_px').replace('_', ' ')} {_shown(value)}")
    return "; ".join(parts)


def _shown(value: Any) -> str:
    """A setting's value as people write it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def curves(log: Sequence[Values]) -> str:
    """Charts of losses, rates, held-out scores, monitored values, and pace."""
    trained = [record for record in log if "losses" in record]
    held_out = [r for r in log if r.get("event") == "evaluation" and r.get("score") is not None]
    if not trained and not held_out:
        return ""
    losses = _grouped(trained, "losses")
    if len(losses) > 1:
        losses["sum"] = _points(trained, lambda record: record.get("loss"))
    charts = [line_chart("Losses, as added up", losses)]
    if held_out:
        scores = [(record["step"], record["score"]) for record in held_out]
        charts.append(line_chart("Held-out score", {"score": scores}))
    charts.append(line_chart("Learning rates", _grouped(trained, "lr"), log_y=True))
    monitored = _grouped(trained, "monitor")
    charts += [line_chart(name, {name: points}) for name, points in monitored.items()]
    pace = {"images": _points(trained, lambda record: record.get("images_per_s"))}
    charts.append(line_chart("Images per second", pace))
    return f'<div class="charts">{"".join(charts)}</div>'


def _points(
    records: Iterable[Values], read: Callable[[Values], float | None]
) -> list[tuple[float, float]]:
    """(step, value) of the records that have a value."""
    affinity_maps = ((record["step"], read(record)) for record in records)
    return [(step, value) for step, value in affinity_maps if value is not None]


def _grouped(records: Sequence[Values], key: str) -> dict[str, list[tuple[float, float]]]:
    """(step, value) by name of a mapping inside each record."""
    grouped: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in (record.get(key) or {}).items():
            if value is not None:
                grouped.setdefault(name, []).append((record["step"], value))
    return grouped


def data_counts(recipe: Recipe | None) -> str:
    """Images per class of the training list, read again from the data."""
    if recipe is None:
        return ""
    try:
        source: Source = plugins.load("data", recipe.data.name)(recipe.data, "train")
    except Tag2MaskError as error:
        return f'<p class="missing">{escape(str(error))}</p>'
    counts = source.tags.sum(axis=0).tolist()
    negatives = int((source.tags.sum(axis=1) == 0).sum())
    rows = "".join(
        f"<tr><th>{escape(name)}</th><td>{count:,}</td></tr>"
        for name, count in zip(source.class_names, counts, strict=True)
    )
    skipped = f" {len(source.skipped):,} unreadable images were left out." if source.skipped else ""
    return (
        f"<p>{len(source):,} images to learn from, {negatives:,} of them without any class."
        f'{skipped}</p><div class="wide"><table>'
        "<thead><tr><th>class</th><th>images</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def provenance(log: Sequence[Values]) -> str:
    """Command, seed, versions and machine of each start."""
    starts = [record for record in log if record.get("event") in ("start", "resume")]
    lists = []
    for record in starts:
        told = {
            record["event"]: f"at step {record.get('step', 0):,}",
            "command": record.get("command"),
            "seed": record.get("seed"),
            "versions": _joined(record.get("versions")),
            "machine": _joined(record.get("machine")),
            "license of the weights": record.get("weights_license"),
        }
        items = "".join(
            f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>"
            for key, value in told.items()
            if value not in (None, "")
        )
        lists.append(f"<dl>{items}</dl>")
    return "".join(lists)


def _joined(values: Any) -> str:
    if not isinstance(values, Mapping):
        return ""
    return ", ".join(f"{key} {value}" for key, value in values.items())


def recipe_text(recipe: Recipe | None) -> str:
    """The resolved recipe, folded away."""
    if recipe is None:
        return ""
    text = escape(recipe.to_yaml())
    return f"<details><summary>resolved, as trained</summary><pre>{text}</pre></details>"


def percent(value: float | None) -> str:
    """0.4567 as 45.7, a missing score as a dash."""
    return "-" if value is None else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Hours and minutes, or minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def gate_of(score: Values) -> str:
    """Who chose the classes, in words."""
    return f"classes from {score.get('class_source') or 'unknown'}"
