"""Read YAML that a person, another program or a crash may have damaged.

Only what recipes need: mappings, lists, texts, numbers, switches and null. Aliases and tags are
refused, because a small file could otherwise become a large value or a value of another type.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from tag2mask.errors import RecipeError, Tag2MaskError, did_you_mean, shorten
from tag2mask.io.text_files import MEBIBYTE, read_text

MOST_BYTES = MEBIBYTE
"""Size of the largest file: a recipe has 5 KiB, a list of 20,000 classes 0.5 MiB."""
DEEPEST = 50
"""Lists and mappings inside each other."""
_LONGEST = 100
"""Characters of what a message quotes, and of the longest number."""
_HARMFUL = re.compile(r"[\x00\ud800-\udfff]")
_RESOLVED = ("null", "bool", "int", "float")
_PREFIX = "tag:yaml.org,2002:"


def read_yaml(path: Path, kind: type[Tag2MaskError] = RecipeError) -> object:
    """Read one YAML file.

    Args:
        path: The file.
        kind: What to raise.

    Raises:
        Tag2MaskError: Of `kind`, in one line that names the line of the mistake.
    """
    if not path.exists():
        hint = did_you_mean(path.name, [other.name for other in path.parent.glob("*.y*ml")])
        raise kind(f"{path}: cannot be read (No such file or directory).{hint}")
    return parse_yaml(read_text(path, kind, most_bytes=MOST_BYTES), str(path), kind)


def parse_yaml(text: str, where: str, kind: type[Tag2MaskError] = RecipeError) -> object:
    """Read the text of one YAML document.

    Args:
        text: The document.
        where: Names it in messages.
        kind: What to raise.

    Raises:
        Tag2MaskError: Of `kind`, in one line.
    """
    if len(text) > MOST_BYTES:
        raise kind(f"{where}: is not valid YAML (more than {MOST_BYTES:,} characters)")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        problem = shorten(problem, _LONGEST)
        raise kind(f"{where}:{line} is not valid YAML ({problem})") from error
    except ValueError as error:
        raise kind(f"{where}: is not valid YAML ({shorten(str(error), _LONGEST)})") from error


class _Loader(yaml.SafeLoader):
    """A loader of plain values, of bounded depth, without aliases, tags and repeated keys."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose one value; refuse what would make it large or of another type."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, "aliases, *name, are not read; write the value again")
        if event.tag not in (None, "!"):
            raise _error(event, f"tags, {event.tag}, are not read; write a plain value")
        if self._depth > DEEPEST:
            raise _error(event, f"more than {DEEPEST} lists and mappings inside each other")
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(node, ScalarNode):
            _check_scalar(node)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Make a mapping; a key that occurs twice would lose one of the values."""
        known: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if isinstance(key, ScalarNode):
                if (key.tag, key.value) in known:
                    raise _error(key, f"key '{key.value}' occurs twice")
                known.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


# YAML's dates, merge keys and sets are left out: a class called 2026-01-31 is a text.
_Loader.yaml_implicit_resolvers = {
    first: kept
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
    if (kept := [rule for rule in rules if rule[0].removeprefix(_PREFIX) in _RESOLVED])
}


def _check_scalar(node: ScalarNode) -> None:
    """Raise an error for a number or text that would fail later."""
    if node.tag.removeprefix(_PREFIX) in ("int", "float") and len(node.value) > _LONGEST:
        raise _error(node, f"a number of {len(node.value):,} characters")
    if _HARMFUL.search(node.value):
        raise _error(node, "a text with a zero byte or half a character")


def _error(where: Any, problem: str) -> yaml.MarkedYAMLError:
    """Return an error at an event or node."""
    return yaml.MarkedYAMLError(problem=shorten(problem, _LONGEST), problem_mark=where.start_mark)
