import inspect

import pytest

from tag2mask import errors
from tag2mask.errors import (
    MissingExtraError,
    RecipeError,
    Tag2MaskError,
    UnknownPluginError,
    did_you_mean,
)

ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if kind.__module__ == errors.__name__
]


def test_every_error_derives_from_one_class():
    assert len(ERRORS) >= 7
    assert all(issubclass(kind, Tag2MaskError) for kind in ERRORS)


def test_docstring_names_every_error():
    for kind in ERRORS:
        assert kind.__name__ in (errors.__doc__ or "")


def test_unknown_plugin_message_names_the_nearest_and_all_known():
    error = UnknownPluginError("method", "rlm", ["rml", "cam"])
    assert str(error) == "unknown method 'rlm'. Did you mean 'rml'? Known: cam, rml"
    assert isinstance(error, RecipeError)


def test_missing_extra_message_says_what_to_install():
    assert "pip install 'tag2mask[train]'" in str(MissingExtraError("train"))


@pytest.mark.parametrize(
    ("name", "hint"), [("stepz", " Did you mean 'steps'?"), ("zzz", ""), ("", "")]
)
def test_only_a_near_name_gets_a_hint(name, hint):
    assert did_you_mean(name, ["steps", "batch"]) == hint
