from types import SimpleNamespace

import pytest

from tag2mask.api import open_run
from tag2mask.cli.inference import print_summary
from tag2mask.config.recipe import parse_recipe
from tag2mask.inference.segmenter import Segmenter
from tag2mask.methods.build import build_method


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ((3, 0, ()), "3 masks written to M"),
        ((3, 2, ()), "3 masks written to M, 2 were there already"),
        ((3, 0, ("a.jpg: broken",)), "3 masks written to M, 1 unreadable images skipped"),
    ],
)
def test_summary_counts_written_and_skipped_images(written, line, capsys):
    values = dict(zip(("written", "already", "unreadable"), written, strict=True))
    print_summary(SimpleNamespace(**values), "M")
    shown = capsys.readouterr()
    assert shown.out.strip() == line
    assert ("skipped: a.jpg: broken" in shown.err) == bool(written[2])


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
    method = build_method(recipe)

    def load(run, which, *, device, configure):
        return Segmenter(method, configure(recipe) if configure else recipe, device)

    monkeypatch.setattr(Segmenter, "load", load)


@pytest.mark.parametrize(
    ("overrides", "config"),
    [
        ({"predict.scales": "1.0"}, None),
        (
            {"refiner.name": "pamr", "refiner.width": "0.2"},
            {
                "name": "pamr",
                "dilations": (1, 2, 4, 8, 12, 24),
                "iterations": 7,
                "width": 0.2,
            },
        ),
        ({"refiner.name": "random_walk"}, {"radius": 5}),
        ({"refiner.name": "pamr", "predict.refine": "false"}, None),
        ({"refiner.name": "none"}, None),
    ],
)
@pytest.mark.usefixtures("_unrefined_run")
def test_named_refiner_is_applied(overrides, config):
    refiner = open_run("run", overrides).postprocessor.refiner
    assert (refiner is None) == (config is None)
    if refiner is not None:
        assert config.items() <= refiner.config.model_dump().items()
