from types import SimpleNamespace

import pytest

from tag2mask.cli.segmenting import predict_help, refuse_other_sections, tell_written
from tag2mask.errors import RecipeError
from tag2mask.recipe import PredictConfig


def test_help_lists_every_setting_of_test_time():
    text = predict_help()
    assert all(f"--predict.{key}: " in text for key in PredictConfig.model_fields)


def test_what_training_has_settled_is_refused():
    refuse_other_sections({"predict.flip": ["false"], "refiner.name": ["none"]}, "label")
    with pytest.raises(RecipeError, match=r"--optim\.lr: is settled when training; 'label' takes"):
        refuse_other_sections({"predict.flip": [], "optim.lr": ["1"]}, "label")


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ((3, 0, ()), "3 masks written to M"),
        ((3, 2, ()), "3 masks written to M, 2 were there already"),
        ((3, 0, ("a.jpg: broken",)), "3 masks written to M, 1 unreadable photos skipped"),
    ],
)
def test_end_tells_what_was_done(written, line, capsys):
    values = dict(zip(("written", "already", "unreadable"), written, strict=True))
    tell_written(SimpleNamespace(**values), "M")
    shown = capsys.readouterr()
    assert shown.out.strip() == line
    assert ("skipped: a.jpg: broken" in shown.err) == bool(written[2])
