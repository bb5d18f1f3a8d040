from types import SimpleNamespace

import numpy as np

from tag2mask.evaluation.calibration import Calibration
from tag2mask.evaluation.sweep import ThresholdSweep
from tag2mask.report.charts import FRAME
from tag2mask.report.network_scores import NetworkScores
from tag2mask.report.reliability import better_threshold, calibration_charts, sweep_chart


def make_scores(trained_on=0, images=40):
    sweep = ThresholdSweep([0.2, 0.5, 0.8], 2)
    cam = np.array([[[0.9, 0.9, 0.4, 0.1]]], dtype=np.float32)
    sweep.update(cam, np.array([[1, 1, 0, 0]], dtype=np.uint8))
    calibration = Calibration()
    calibration.add(np.full(10, 0.75), np.arange(10) < 5)
    return NetworkScores({}, sweep, calibration, images, trained_on)


def network(rule="fixed", threshold=0.2):
    return SimpleNamespace(config=SimpleNamespace(background_rule=rule, background_score=threshold))


def test_sweep_shows_scores_best_and_present_threshold():
    chart = sweep_chart(make_scores(), network())
    at_best = chart.lines[0].points[1]
    assert at_best == (FRAME.x(0.5), FRAME.y(1.0))
    assert chart.markers == (FRAME.x(0.2),)
    assert "Best: 0.5 (100.0 %)" in chart.note
    assert "40 images that the network never learned from" in chart.note
    chart = sweep_chart(make_scores(trained_on=3), network("otsu"))
    assert chart.markers == ()
    assert "a threshold for each image" in chart.note
    assert "3 of them with tags that the network learned from" in chart.note


def test_only_a_clearly_better_threshold_is_worth_a_line():
    assert better_threshold(make_scores(), network()) == 0.5
    assert better_threshold(make_scores(), network(threshold=0.5)) is None
    assert better_threshold(make_scores(), network("otsu")) is None
    assert better_threshold(make_scores(images=19), network()) is None
    assert better_threshold(None, None) is None


def test_calibration_is_drawn_beside_the_diagonal():
    (chart,) = calibration_charts(None, make_scores(), frozenset())
    measured, perfect = chart.lines
    assert list(measured.points) == [(FRAME.x(0.75), FRAME.y(0.5))]
    assert perfect.is_dashed
    assert chart.legend[0].name == "measured; calibration error 25.0 %"


def test_nothing_is_drawn_where_nothing_is_known():
    nothing = NetworkScores({}, None, Calibration(), 0, 0)
    assert sweep_chart(nothing, network()) is None
    assert sweep_chart(None, None) is None
    assert calibration_charts(None, nothing, frozenset()) == ()
