import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.config.recipe import RECIPE_FOLDER
from tag2mask.errors import DataError, RecipeError
from tag2mask.io.yaml_files import DEEPEST, MOST_BYTES, parse_yaml, read_yaml

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False)
    | st.text(st.characters(min_codepoint=32, max_codepoint=0x7E) | st.sampled_from("é中\n\t")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=15,
)


@given(PLAIN)
def test_what_yaml_writes_is_read_back_equal(value: object) -> None:
    assert parse_yaml(yaml.safe_dump(value, allow_unicode=True), "test") == value


@pytest.mark.parametrize(
    "path",
    sorted(RECIPE_FOLDER.rglob("*.yaml"))[::6],
    ids=lambda path: path.stem,
)
def test_recipes_read_as_by_yaml_itself(path: Path) -> None:
    assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &x [1]\nb: *x", r"a: line 2: .*aliases, \*name, are not read"),
        ("!!python/object/apply:os.system ['x']", "line 1: .*tags, .* are not read"),
        ("a: !!timestamp x", "tags, .* are not read"),
        ("a: 1\nb: 2\na: 3", r"line 3: .*key 'a' occurs twice"),
        ("a: {b: 1, b: 2}", "key 'b' occurs twice"),
        ("{" * (DEEPEST + 2), "inside each other"),
        ("- " * 1000 + "x", "inside each other"),
        ("a: " + "9" * 5000, "a number of 5,000 characters"),
        ("a: 1:" + "1:" * 500 + "1", "a number of .* characters"),
        ('"\\0"', "zero byte"),
        ('"\\uD800"', "half a character"),
        ("a: 1\n---\nb: 2", "another document"),
        ("? {a: b}\n: c", "unhashable key"),
        ("\x01", "special characters are not allowed"),
        ("a: '", "found unexpected end of stream"),
        ("x" * (MOST_BYTES + 1), "more than"),
    ],
)
def test_what_recipes_do_not_need_is_refused_in_one_short_line(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        parse_yaml(text, "a")
    assert len(caught.value.problems) == 1
    assert len(caught.value.problems[0]) < 250


def test_a_date_stays_a_text() -> None:
    assert parse_yaml("a: 2026-01-31\nb: 2026-13-45", "a") == {"a": "2026-01-31", "b": "2026-13-45"}


def test_a_billion_laughs_and_deep_brackets_end_at_once() -> None:
    laughs = "a: &a [x,x]\n" + "".join(
        f"{chr(98 + k)}: &{chr(98 + k)} [*{chr(97 + k)},*{chr(97 + k)}]\n" for k in range(20)
    )
    start = time.process_time()
    for text in (laughs, "[" * 500_000, "{a: " * 200_000):
        with pytest.raises(RecipeError):
            parse_yaml(text, "a")
    assert time.process_time() - start < 5


def test_a_missing_file_gets_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").touch()
    with pytest.raises(RecipeError, match=r"own\.yml: cannot be read .* Did you mean 'own\.yaml'"):
        read_yaml(tmp_path / "own.yml")


def test_the_error_is_of_the_kind_that_the_caller_names(tmp_path: Path) -> None:
    (tmp_path / "data.yaml").write_text("a: [")
    with pytest.raises(DataError, match=r"data\.yaml: line 1: is not valid YAML"):
        read_yaml(tmp_path / "data.yaml", DataError)
