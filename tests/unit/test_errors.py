import inspect
import pickle

import pytest

from tag2mask import errors
from tag2mask.errors import (
    LONGEST_LINE,
    MissingExtraError,
    RecipeError,
    Tag2MaskError,
    UnknownPluginError,
    did_you_mean,
    is_printable,
    printable,
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


def test_a_name_can_neither_forge_a_line_nor_command_the_terminal():
    error = Tag2MaskError("a\nerror: b", "\x1b[2Jc\u202ed\u2028e\x85f\ud800", "tab\tg")
    assert error.problems == (
        r"a\nerror: b",
        r"\x1b[2Jc\u202ed\u2028e\x85f\ud800",
        r"tab\tg",
    )
    assert str(error).splitlines() == list(error.problems)


def test_letters_of_every_script_are_shown_as_they_are():
    text = "é 中 \u200d \u3000 \U0001f408 [red]"
    assert printable(text) == text
    assert is_printable(text)
    assert not is_printable("a\x7f")


def test_a_problem_is_never_longer_than_a_page():
    assert len(str(Tag2MaskError("x" * 10**6))) < LONGEST_LINE + 10
    assert len(str(UnknownPluginError("method", "x" * 10**6, ["a"]))) < 200


def test_an_error_with_several_problems_survives_pickling():
    error = pickle.loads(pickle.dumps(RecipeError("a\nb", "c")))
    assert error.problems == (r"a\nb", "c")
