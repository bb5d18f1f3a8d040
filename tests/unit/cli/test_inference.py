import json
from dataclasses import replace
from pathlib import Path

import pytest

from tag2mask.api import open_run
from tag2mask.cli.inference import half_trained, print_summary
from tag2mask.config.recipe import parse_recipe
from tag2mask.inference.mask_summary import ClassSummary, MaskSummary
from tag2mask.inference.segmenter import Segmenter
from tag2mask.inference.shards import Shard
from tag2mask.inference.writer import WriteSummary
from tag2mask.methods.build import build_method


def summary(written=3, already=0, unreadable=(), **masks):
    counted = {"images": written + already, "classes": {"cat": ClassSummary(2, 3, 0.25)}}
    counted |= {"empty": ("a",), "negatives": 0, "full_frame": (), "skipped": len(unreadable)}
    counted |= {"uncertainty": (("b", 0.75), ("a", 0.5)), "advice": ()}
    return WriteSummary(written, already, unreadable, MaskSummary(**(counted | masks)))


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ((3, 0, ()), "3 masks written to M"),
        ((3, 2, ()), "3 masks written to M, 2 were there already"),
        ((3, 0, ("a.jpg: broken",)), "3 masks written to M, 1 unreadable images skipped"),
    ],
)
def test_summary_counts_written_and_skipped_images(written, line, capsys):
    print_summary(summary(*written), Path("M"))
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0] == line
    assert ("skipped: a.jpg: broken" in shown.err) == bool(written[2])


def test_summary_ends_with_what_to_inspect_first(capsys):
    advice = ("33% of the masks are empty; try predict.background=0.2",)
    print_summary(summary(advice=advice), Path("M"), overlays=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "in this folder: 3 masks, 1 (33%) empty, 0 full-frame"
    assert lines[3].split() == ["cat", "2", "3", "25%"]
    assert lines[4] == f"warning: {advice[0]}"
    assert lines[5] == "most uncertain, inspect first: b (0.75), a (0.50)"
    assert lines[6] == "gallery: M/overlays/index.html"
    assert lines[7:] == ["next:    tag2mask export M --format coco --out M.json"]


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        ({"step": 120, "steps": 600, "finished": False}, "trained 120 of 600 steps"),
        ({"step": 600, "steps": 600, "finished": True}, None),
        ({"step": 600, "steps": 600, "finished": False}, None),  # only its last score is missing
        ({"no": "steps"}, None),
        (None, None),
    ],
)
def test_a_half_trained_run_is_named_with_the_command_that_finishes_it(metrics, words, tmp_path):
    if metrics is not None:
        (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    line = half_trained(tmp_path, "runs/my pets")
    assert (line is None) == (words is None)
    if words is not None:
        assert words in line
        assert line.endswith("tag2mask train --resume 'runs/my pets'")


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


def test_a_shard_names_itself_and_those_that_are_not_finished(capsys):
    done = replace(summary(), shard=Shard(2, 16), unfinished=(0, *range(3, 16)))
    print_summary(done, Path("M"))
    assert capsys.readouterr().out.splitlines() == [
        "shard 2 of 16: 3 masks written to M",
        "not finished yet: shards 0, 3, 4, 5, 6, 7, 8, 9 and 6 more; the last one merges all",
    ]
    print_summary(replace(done, unfinished=()), Path("M"))
    assert "in this folder: 3 masks" in capsys.readouterr().out
