import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag2mask.errors import DataError, RunError
from tag2mask.io.json_files import (
    DEEPEST,
    FileSchema,
    find_problem,
    parse_json,
    read_json,
    read_lines,
    read_object,
)

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc"), inner),
    max_leaves=20,
)


class Point(FileSchema):
    x: int
    name: str = ""


@given(PLAIN)
def test_what_json_writes_is_read_back_equal(value: object) -> None:
    assert parse_json(json.dumps(value)) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("", "Expecting value"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e999", "beyond the largest float"),
        (str(2**63), "beyond 64 bits"),
        (str(-(2**63) - 1), "beyond 64 bits"),
        ("9" * 5000, "4300 digits"),
        ('{"a": 1, "b": {"a": 1, "a": 2}}', "key 'a' occurs twice"),
        ('"\\ud800"', "half a character"),
        ('{"a\\u0000": 1}', "zero byte"),
        ("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "inside each other"),
        ("[" * 100_000, "inside each other"),
    ],
)
def test_what_would_fail_later_is_refused_in_a_few_words(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 150


def test_the_deepest_allowed_nesting_is_read() -> None:
    text = "[" * DEEPEST + "]" * DEEPEST
    assert json.dumps(parse_json(text)) == text


def test_values_are_checked_but_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"x": 1, "other": [2]}')
    assert read_object(path, Point) == {"x": 1, "other": [2]}
    for text, message in {
        "[]": "is not a JSON object",
        "{}": "x: Field required",
        '{"x": "1"}': "x: Input should be a valid integer",
        '{"x": true}': "x: Input should be a valid integer",
        '{"x": 1, "name": null}': "name: Input should be a valid string",
    }.items():
        path.write_text(text)
        with pytest.raises(RunError, match=rf"a\.json: {message}; remove it"):
            read_object(path, Point, RunError, advice="remove it")


def test_a_broken_file_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(DataError, match=r"a\.json: is not valid JSON \(Expecting") as caught:
        read_json(path)
    assert len(caught.value.problems) == 1


def test_lines_that_are_torn_or_do_not_fit_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert list(read_lines(path, Point)) == []
    path.write_bytes(b'{"x": 1}\n\n[]\n{"x": "2"}\n\xff\n{"x": 3, "name": "\xe2\x80\xa8"}\n{"x": 4')
    assert [row["x"] for row in read_lines(path, Point)] == [1, 3]
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="is a folder"):
        list(read_lines(path))


def test_a_long_key_is_cut_in_the_message() -> None:
    class Table(FileSchema):
        rows: dict[str, int]

    assert len(find_problem({"rows": {"k" * 10_000: "x"}}, Table)) < 200
