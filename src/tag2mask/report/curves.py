"""Charts of a training log: losses, scores, learning rates, monitored values, speed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from tag2mask.report.charts import Chart, line_chart
from tag2mask.report.run_parts import Values
from tag2mask.report.terms import LEARNING_RATES, LOSSES, MONITORS, Term, term


def training_charts(log: Sequence[Values], metric: str = "") -> tuple[Chart, ...]:
    """Draw losses, scores, rates and speed over training steps; empty if nothing is logged yet.

    Args:
        log: Records of `log.jsonl`.
        metric: What the score on held-out images measures.
    """
    trained = [record for record in log if "losses" in record]
    scored = [r for r in log if r.get("event") == "evaluation" and r.get("score") is not None]
    if not trained and not scored:
        return ()
    losses = _group_points(trained, "losses")
    if len(losses) > 1:
        losses["sum"] = _points(trained, lambda record: record.get("loss"))
    note = "How wrong the network is at each task, times the weight of the task; lower is better."
    if len({points[0][0] for points in losses.values()}) > 1:
        note += " The total jumps where a task begins later."
    chart = line_chart("Losses, weighted", _with_labels(losses, LOSSES), note=note)
    charts = [chart._replace(explanations=_explanations(losses, LOSSES))]
    if scored:
        points = [(record["step"], record["score"]) for record in scored]
        charts.append(line_chart("Score on held-out images", {"score": points}, note=metric))
    rates = _with_labels(_group_points(trained, "lr"), LEARNING_RATES)
    note = "How far one step changes the network; 1e-05 is 0.00001."
    chart = line_chart("Learning rates", rates, log_y=True, note=note)
    meanings = _explanations(_group_points(trained, "lr"), LEARNING_RATES)
    charts.append(chart._replace(explanations=meanings))
    speed = {"images": _points(trained, lambda record: record.get("images_per_s"))}
    charts.append(line_chart("Images per second", speed, note="How fast training was."))
    return tuple(charts)


def monitor_charts(log: Sequence[Values]) -> tuple[Chart, ...]:
    """Draw the values that a method monitors, one chart each."""
    charts = []
    trained = [record for record in log if "losses" in record]
    for name, points in _group_points(trained, "monitor").items():
        label, explanation = term(name, MONITORS)
        title = label[:1].upper() + label[1:]
        charts.append(line_chart(title, {"last value": points}, note=explanation))
    return tuple(charts)


def _with_labels(
    series: Mapping[str, list[tuple[float, float]]], terms: Mapping[str, Term]
) -> dict[str, list[tuple[float, float]]]:
    return {term(name, terms).label: points for name, points in series.items()}


def _explanations(series: Iterable[str], terms: Mapping[str, Term]) -> dict[str, str]:
    """Return what each name means, by its label; names without an explanation are left out."""
    known = (term(name, terms) for name in series)
    return {one.label: one.explanation for one in known if one.explanation}


def _points(
    records: Iterable[Values], read: Callable[[Values], float | None]
) -> list[tuple[float, float]]:
    """Return (step, value) of the records that have a value."""
    pairs = ((record["step"], read(record)) for record in records)
    return [(step, value) for step, value in pairs if value is not None]


def _group_points(records: Sequence[Values], key: str) -> dict[str, list[tuple[float, float]]]:
    """Return name -> (step, value) pairs of a mapping in each record."""
    grouped: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, value in (record.get(key) or {}).items():
            if value is not None:
                grouped.setdefault(name, []).append((record["step"], value))
    return grouped
