"""Sort the words of a command: its own options and arguments, and recipe keys KEY=VALUE."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tag2mask.errors import Tag2MaskError, did_you_mean

if TYPE_CHECKING:  # pydantic, which --help need not import
    from pydantic import BaseModel

_CLOSE = 0.8
"""Similarity from which a word is taken for a misspelled option rather than for a recipe key."""
Schema = Callable[[Sequence[str]], "type[BaseModel]"]
"""Returns the model of the recipe that the plain words name; it serves for hints."""


def sort_words(
    words: Sequence[str], options: Mapping[str, int], schema: Schema | None = None
) -> tuple[list[str], list[str]]:
    """Separate recipe keys from the other words; after `--` no word is a key.

    Args:
        words: What follows the command's name.
        options: The command's own options, such as `--out`, and how many values each takes.
        schema: See above; None if the command takes no recipe keys.

    Returns:
        Arguments and the command's own options, in order; and the words `KEY=VALUE`.

    Raises:
        Tag2MaskError: One line per unknown option, option without value or key without equals sign.
    """
    plain: list[str] = []
    keys: list[str] = []
    problems: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word == "--":
            plain += [word, *rest]
            break
        name, equals, _ = word.partition("=")
        if name in options:
            count = 0 if equals else options[name]
            if count > len(rest):
                problems.append(f"{name}: needs {'a value' if count == 1 else f'{count} values'}")
            plain += [word, *rest[:count]]
            del rest[:count]
        elif _is_option(word):
            kind = None if schema is None else schema(plain)
            problems.append(_unknown_option(word, rest, options, kind))
        elif schema is None:
            plain.append(word)
        elif _is_override(word):
            keys.append(word)
        elif problem := _missing_equals(word, rest, plain, schema):
            problems.append(problem)
        else:
            plain.append(word)
    if problems:
        raise Tag2MaskError(*problems)
    return plain, keys


def _is_option(word: str) -> bool:
    """Return whether a word starts like an option; a negative number does not."""
    return len(word) > 1 and word[0] == "-" and word[1] not in "0123456789."


def _is_override(word: str) -> bool:
    from tag2mask.config.overrides import is_override

    return is_override(word)


def _unknown_option(
    word: str, rest: Sequence[str], options: Mapping[str, int], kind: type[BaseModel] | None
) -> str:
    """Return the message for an unknown option, with the key or option that was probably meant."""
    option, equals, value = word.partition("=")
    name = option.lstrip("-").replace("-", "_")
    hint = ""
    if kind is not None:
        from tag2mask.config.overrides import similar_key, suggest_key

        values = [value] if equals else _values(rest)
        hint = suggest_key(name, values, kind)
        if not hint and not difflib.get_close_matches(option, options, n=1, cutoff=_CLOSE):
            hint = similar_key(name, values, kind)
    return f"unknown option '{option}'.{hint or _nearest_option(option, options)}"


def _nearest_option(option: str, options: Iterable[str]) -> str:
    """Return " Did you mean '--out'?" for a misspelled or shortened option, or nothing."""
    known = list(options)
    begins = [full for full in known if full.startswith(f"--{option.lstrip('-')}")]
    return f" Did you mean '{begins[0]}'?" if len(begins) == 1 else did_you_mean(option, known)


def _missing_equals(
    word: str, rest: Sequence[str], plain: Sequence[str], schema: Schema
) -> str | None:
    """Return the message for a recipe key that is not written KEY=VALUE; None for other words."""
    if "." not in word or Path(word).exists():
        return None
    from tag2mask.config.overrides import is_key, suggest_key
    from tag2mask.config.stages import SECTIONS

    if word.partition(".")[0] not in (*SECTIONS, "run", "stages"):
        return None
    kind = schema(plain)
    if not is_key(word, kind):
        return None
    return f"'{word}' has no value.{suggest_key(word, _values(rest), kind)}"


def _values(rest: Sequence[str]) -> list[str]:
    """Return the words up to the next option or key: the values that a person had in mind."""
    values: list[str] = []
    for word in rest:
        if _is_option(word) or _is_override(word):
            break
        values.append(word)
    return values[1:] if values[:1] == ["="] else values
