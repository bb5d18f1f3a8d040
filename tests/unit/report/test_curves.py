from pathlib import Path

from tag2mask.report.curves import monitor_charts, training_charts
from tag2mask.report.run_parts import read_run


def test_charts_show_losses_scores_rates_and_speed(run: Path) -> None:
    charts = training_charts(read_run(run).log)
    assert [chart.title for chart in charts] == [
        "Losses, weighted",
        "Score on held-out images",
        "Learning rates",
        "Images per second",
    ]
    assert [len(chart.lines) for chart in charts] == [3, 1, 1, 1]
    assert len(charts[1].lines[0].points) == 1
    assert training_charts(()) == ()


def test_legends_use_plain_words(run: Path) -> None:
    charts = training_charts(read_run(run).log)
    names = [entry.name for chart in charts for entry in chart.legend]
    assert names[:3] == ["image classification", "affinity", "total"]
    assert "pretrained weights (base)" in names
    assert charts[0].explanations["affinity"] == "Which positions belong to the same class?"


def test_monitored_values_have_a_chart_each_with_their_meaning(run: Path) -> None:
    (chart,) = monitor_charts(read_run(run).log)
    assert chart.title == "Tags with an empty CAM"
    assert "Share of tags" in chart.note
    assert monitor_charts(()) == ()


def test_a_task_that_begins_later_explains_the_jump_of_the_total() -> None:
    first = {"step": 1, "losses": {"classification": 1.0}, "loss": 1.0}
    later = {"step": 2, "losses": {"classification": 0.9, "affinity": 0.5}, "loss": 1.4}
    assert "The total jumps" in training_charts([first, later])[0].note
    assert "jumps" not in training_charts([later, {**later, "step": 3}])[0].note
