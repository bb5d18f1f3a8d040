"""The project says one word for one thing, and it is the field's word, in American spelling.

Checked: names that code binds (split at underscores and capitals), keys of recipes, of JSON and of
literal dictionaries, options, file names, and prose: pages, docstrings and comments. Offenders are
reported as `path:line: word -> better`.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from tests.architecture.vocabulary import (
    ANY_PROSE,
    ANY_SPELLING,
    FILES,
    IN_SENTENCES,
    NAMES,
    PROSE,
    PROSE_ALLOWED,
    SPELLING,
    Rule,
)

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "benchmarks", "docs", "examples")
EXEMPT = re.compile(r"architecture/(test_)?vocabulary\.py$|^benchmarks/golden/")
"""Files that contain the forbidden words as data, and those that drive the code of old commits."""


class Word(NamedTuple):
    """A name or key and where it stands."""

    text: str
    line: int
    kind: str
    """class, def, name, key or value."""


def bound_names(tree: ast.AST) -> Iterator[Word]:
    """Names that code defines; what it only uses belongs to others, such as `dict.keys`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield Word(node.name, node.lineno, "class")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Word(node.name, node.lineno, "def")
        elif isinstance(node, ast.arg):
            yield Word(node.arg, node.lineno, "name")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield Word(node.id, node.lineno, "name")
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield Word(node.attr, node.lineno, "name")


def literal_keys(tree: ast.AST) -> Iterator[Word]:
    """Keys of literal dictionaries and subscripts, fields of settings."""
    for node in ast.walk(tree):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            keys = list(node.keys)
        elif isinstance(node, ast.Subscript):
            keys = [node.slice]
        elif isinstance(node, ast.ClassDef) and node.name.endswith("Config"):
            fields = [one for one in node.body if isinstance(one, ast.AnnAssign)]
            yield from (Word(ast.unparse(one.target), one.lineno, "key") for one in fields)
        for key in keys:
            value = getattr(key, "value", None)
            if isinstance(value, str) and re.fullmatch(r"[A-Za-z_.]+", value):
                yield Word(value, key.lineno, "key")


def literal_words(tree: ast.AST) -> Iterator[Word]:
    """Strings that are an option or a single word."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.fullmatch(r"--[a-z][\w.-]*", node.value):
                yield Word(node.value.strip("-").replace("-", "_"), node.lineno, "key")
            elif re.fullmatch(r"[a-z]+", node.value):
                yield Word(node.value, node.lineno, "value")


def python_words(source: str) -> list[Word]:
    """Names and keys of a module."""
    tree = ast.parse(source)
    return [*bound_names(tree), *literal_keys(tree), *literal_words(tree)]


def data_keys(value: object) -> Iterator[str]:
    """Keys of nested JSON or YAML."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from data_keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from data_keys(inner)


def words_of(path: Path) -> list[Word]:
    """Names and keys of one file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return python_words(text)
    if path.suffix in (".json", ".yaml"):
        content = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
        keys = sorted({key for key in data_keys(content) if re.fullmatch(r"[a-z_.]+", key)})
        return [Word(key, line_of(text, key), "key") for key in keys]
    return []


def line_of(text: str, word: str) -> int:
    """Number of the first line with a word."""
    before, _, _ = text.partition(word)
    return before.count("\n") + 1


def parts(name: str) -> list[str]:
    """Split a name at underscores, dots and capitals."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def broken_rules(word: Word, path: str) -> Iterator[Rule]:
    """Rules that a name or key breaks."""
    pieces = set(parts(word.text))
    for forbidden in ({word.text.lower()} | pieces) & NAMES.keys():
        rule = NAMES[forbidden]
        complete = word.text.lower() == forbidden
        if rule.allowed and re.search(rule.allowed, path):
            continue
        if word.text.startswith("test_") and forbidden in IN_SENTENCES:
            continue
        if (
            (rule.scope == "part" and word.kind != "value" and forbidden in pieces)
            or (rule.scope == "whole" and word.kind in ("name", "def", "class") and complete)
            or (rule.scope == word.kind and complete)
        ):
            yield rule


def prose_of(path: Path) -> list[tuple[int, str]]:
    """Lines of a page without code; docstrings and comments of a module."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"```.*?```", lambda code: "\n" * code[0].count("\n"), text, flags=re.DOTALL)
        return list(enumerate(re.sub(r"`[^`\n]*`", "", text).splitlines(), start=1))
    lines = []
    if path.suffix == ".py":
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.COMMENT or token.string.startswith('"""'):
                lines += list(enumerate(token.string.splitlines(), start=token.start[0]))
    elif path.suffix == ".yaml":
        lines = [(n, row) for n, row in enumerate(text.splitlines(), start=1) if "#" in row]
    return lines


def files(*suffixes: str) -> list[Path]:
    """Files of the repository, pages of its root included, without what is built."""
    paths = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*"))]
    paths += sorted(REPOSITORY.glob("*.md"))
    return [
        path
        for path in paths
        if path.suffix in suffixes
        and not EXEMPT.search(relative(path))
        and "__pycache__" not in path.parts
    ]


def relative(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def offenders_of_names() -> Iterator[str]:
    for path in files(".py", ".json", ".yaml"):
        name = relative(path)
        for word in words_of(path):
            for rule in broken_rules(word, name):
                yield f"{name}:{word.line}: {word.text} -> {rule.better}"


def offenders_of_files() -> Iterator[str]:
    for path in files(".py", ".json", ".yaml", ".md", ".txt", ".css", ".html"):
        name = relative(path)
        for rule in broken_rules(Word(path.stem, 1, "file"), name):
            yield f"{name}:1: {path.stem} -> {rule.better}"
        for part in (*path.relative_to(REPOSITORY).parts[:-1], path.stem):
            if part.removeprefix("test_") in FILES and path.suffix == ".py":
                yield f"{name}:1: {part} -> {FILES[part.removeprefix('test_')]}"


def offenders_of_prose() -> Iterator[str]:
    for path in files(".py", ".md", ".yaml"):
        name = relative(path)
        for number, line in prose_of(path):
            for hit in ANY_PROSE.finditer(line):
                pattern = next(one for one in PROSE if re.fullmatch(one, hit[0], re.IGNORECASE))
                if not re.search(PROSE_ALLOWED.get(pattern, r"(?!)"), name):
                    yield f"{name}:{number}: {hit[0]} -> {PROSE[pattern]}"


def offenders_of_spelling() -> Iterator[str]:
    for path in files(".py", ".md", ".yaml", ".json", ".css", ".html"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            for hit in ANY_SPELLING.finditer(line):
                stem = next(one for one in SPELLING if re.match(one, hit[0], re.IGNORECASE))
                yield f"{relative(path)}:{number}: {hit[0]} -> {SPELLING[stem]}"


@pytest.mark.parametrize(
    "offenders",
    [offenders_of_names, offenders_of_files, offenders_of_prose, offenders_of_spelling],
    ids=["names and keys", "file names", "prose", "spelling"],
)
def test_words_are_those_of_the_field(offenders):
    found = sorted(set(offenders()))
    if found:
        pytest.fail(f"{len(found)} words:\n" + "\n".join(found), pytrace=False)


@pytest.mark.parametrize(
    "source",
    [
        "class GateLoss: ...",
        "def f(photos): ...",
        "x = {'evidence_px': 1}",
        "def choose(): ...",
        "class AConfig:\n    batch: int = 1",
        "source = 'predicted'",
    ],
)
def test_forbidden_words_are_found(source):
    assert any(list(broken_rules(word, "src/x.py")) for word in python_words(source))


@pytest.mark.parametrize(
    "source",
    [
        "x = d.keys()",
        "def present_classes(batch): ...",
        "import gc\ngc.collect()",
        "def test_overlay_in_place(): ...",
        "shortcut = gated = 1",
    ],
)
def test_common_english_and_names_of_others_are_left_alone(source):
    for word in python_words(source):
        assert not list(broken_rules(word, "src/x.py")), word


def test_docstrings_and_comments_are_prose(tmp_path):
    path = tmp_path / "x.py"
    path.write_text('"""One\nevidence."""\nx = "evidence"  # a photo\n', encoding="utf-8")
    lines = [
        (number, hit[0]) for number, line in prose_of(path) for hit in ANY_PROSE.finditer(line)
    ]
    assert lines == [(2, "evidence"), (3, "photo")]
