import pytest
from pydantic import ValidationError

from tag2mask.config import schema
from tag2mask.config.schema import DataConfig, OptimConfig, PredictConfig, resolve_steps


@pytest.mark.parametrize(
    ("point", "total", "steps"), [(0.11, 20_000, 2200), (2000, 100, 2000), (0, 10, 0), (1, 10, 1)]
)
def test_point_below_one_is_a_fraction(point, total, steps):
    assert resolve_steps(point, total) == steps


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"long_side_min_px": 256}, "set both long_side_min_px and long_side_max_px, or neither"),
        ({"long_side_max_px": 256}, "set both long_side_min_px and long_side_max_px, or neither"),
        ({"long_side_min_px": 9, "long_side_max_px": 8}, "is less than long_side_min_px, 9"),
    ],
)
def test_long_sides_are_set_together(keys, problem):
    with pytest.raises(ValidationError, match=rf"(?s)long_side_max_px\n.*{problem}"):
        DataConfig(name="voc", **keys)
    assert DataConfig(name="voc", long_side_min_px=8, long_side_max_px=8)


@pytest.mark.parametrize(
    ("keys", "score"),
    [({}, 0.45), ({"propagate": True}, 0.35), ({"propagate": True, "background": 0.2}, 0.2)],
)
def test_background_threshold_is_lower_with_propagation(keys, score):
    assert PredictConfig(**keys).background_score == score


def test_sections_are_frozen_and_every_key_has_help():
    with pytest.raises(ValidationError, match="frozen"):
        OptimConfig().lr = 1.0
    for name in ("DataConfig", "OptimConfig", "PredictConfig", "RunConfig"):
        fields = getattr(schema, name).model_fields
        assert all(field.description for field in fields.values()), name
