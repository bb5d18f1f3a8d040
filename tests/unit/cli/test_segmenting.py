from types import SimpleNamespace

import pytest

from tag2mask.cli.segmenting import (
    load_segmenter,
    predict_help,
    print_summary,
    reject_other_sections,
)
from tag2mask.config.recipe import parse_recipe
from tag2mask.config.schema import PredictConfig
from tag2mask.errors import RecipeError
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method


def test_help_lists_every_setting_of_test_time():
    text = predict_help()
    assert all(f"--predict.{key}: " in text for key in PredictConfig.model_fields)


def test_what_training_has_settled_is_rejected():
    reject_other_sections({"predict.flip": ["false"], "refiner.name": ["none"]}, "label")
    with pytest.raises(RecipeError, match=r"--optim\.lr: is settled when training; 'label' takes"):
        reject_other_sections({"predict.flip": [], "optim.lr": ["1"]}, "label")


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ((3, 0, ()), "3 masks written to M"),
        ((3, 2, ()), "3 masks written to M, 2 were there already"),
        ((3, 0, ("a.jpg: broken",)), "3 masks written to M, 1 unreadable images skipped"),
    ],
)
def test_end_tells_what_was_done(written, line, capsys):
    values = dict(zip(("written", "already", "unreadable"), written, strict=True))
    print_summary(SimpleNamespace(**values), "M")
    shown = capsys.readouterr()
    assert shown.out.strip() == line
    assert ("skipped: a.jpg: broken" in shown.err) == bool(written[2])


def test_help_lists_the_refiners():
    assert "pamr, par, random_walk" in predict_help()


@pytest.fixture
def _unrefined_run(monkeypatch):
    raw = {
        "data": {"name": "folder", "classes": ["cat"]},
        "backbone": {"name": "tiny"},
        "method": {"name": "cam"},
        "refiner": {"name": "par", "iterations": 7},
        "predict": {"refine": False},
    }
    recipe = parse_recipe(raw, "test")
    loaded = Segmenter(build_method(recipe), recipe)
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: loaded)


@pytest.mark.parametrize(
    ("overrides", "config"),
    [
        ({"predict.scales": ["1.0"]}, None),
        (
            {"refiner.name": ["pamr"], "refiner.width": ["0.2"]},
            {
                "name": "pamr",
                "dilations": (1, 2, 4, 8, 12, 24),
                "iterations": 7,
                "width": 0.2,
            },
        ),
        ({"refiner.name": ["random_walk"]}, {"radius": 5}),
        ({"refiner.name": ["pamr"], "predict.refine": ["false"]}, None),
        ({"refiner.name": ["none"]}, None),
    ],
)
@pytest.mark.usefixtures("_unrefined_run")
def test_a_refiner_that_is_named_is_applied(overrides, config):
    refiner = load_segmenter("run", "best", overrides).postprocessor.refiner
    assert (refiner is None) == (config is None)
    if refiner is not None:
        assert config.items() <= refiner.config.model_dump().items()
