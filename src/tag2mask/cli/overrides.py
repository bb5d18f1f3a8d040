"""Dotted overrides of a recipe: `--optim.lr 1e-4 --predict.scales 1.0 0.5 --predict.flip false`.

The recipe's own schema checks them, with all other faults, so that a mistyped key gets a hint and a
value out of range says which range. Words are kept as text for the schema to read; only the shape
comes from here:

- words make a list, for keys that hold one (`--predict.scales 1.0 0.5`; one word: a list of one);
- a switch takes `true` or `false`, and nothing means `true`;
- `none` is no value, for keys that may be empty; `--refiner none` removes the section;
- `--method.name cam` switches the plug-in: those keys of the section stay that the new plug-in has
  too, but not the old backbone's weights.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tag2mask import plugins
from tag2mask.errors import RecipeError, did_you_mean
from tag2mask.recipe import PLUGIN_SECTIONS, Recipe, parse_recipe, recipe_type

Overrides = Mapping[str, Sequence[str]]
"""Dotted key -> the words that followed it."""
_EMPTY = ("none", "null")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Part the plain arguments of a command from the dotted overrides.

    An override owns the words up to the next `--`: positional arguments come before the overrides.

    Returns:
        The plain arguments, and the overrides by dotted key (hyphens in keys read as underscores).
    """
    plain: list[str] = []
    overrides: dict[str, list[str]] = {}
    owner = plain
    for word in arguments:
        if not word.startswith("--"):
            owner.append(word)
            continue
        flag, equals, value = word.removeprefix("--").partition("=")
        if "." in flag or flag == "refiner":
            key = "refiner.name" if flag == "refiner" else flag.replace("-", "_")
            owner = overrides[key] = [value] if equals else []
        else:
            owner = plain
            plain.append(word)
    return plain, overrides


def apply_overrides(raw: object, overrides: Overrides, where: str) -> Recipe:
    """Put overrides over a raw recipe and check the whole.

    Args:
        raw: What the YAML file holds; not changed.
        overrides: From `split_overrides`.
        where: Names the recipe in messages; faults of overridden keys name the option in its place.

    Raises:
        RecipeError: One line per fault.
    """
    if not isinstance(raw, Mapping) or not overrides:
        return parse_recipe(raw, where)
    merged = {key: dict(part) if isinstance(part, Mapping) else part for key, part in raw.items()}
    switched = {key: words for key, words in overrides.items() if _names_plugin(key)}
    for key, words in switched.items():
        _switch_plugin(merged, key.removesuffix(".name"), _single(key, words))
    kind = recipe_type(merged, where)
    for key, words in overrides.items():
        if key not in switched:
            _place(merged, key.split("."), _shape(kind, key, words))
    try:
        return parse_recipe(merged, where)
    except RecipeError as error:
        lines = (_blame(line, overrides, where) for line in str(error).splitlines())
        raise RecipeError("\n".join(lines)) from error


def suggest_option(word: str, kind: type[BaseModel], plain: Iterable[str]) -> str:
    """Say that `word` is no option, and which dotted key of `kind` was probably meant.

    Args:
        word: A mistyped option such as `--lr`.
        kind: The recipe's model.
        plain: The command's own options, without dashes.
    """
    leaf = word.removeprefix("--").partition("=")[0].replace("-", "_")
    dotted = list(_dotted_keys(kind))
    same = [key for key in dotted if key.rpartition(".")[2] == leaf]
    if same:
        return f"unknown option '{word}'. Did you mean {' or '.join(f'--{key}' for key in same)}?"
    return f"unknown option '{word}'.{did_you_mean(leaf, [*plain, *dotted])}"


def _names_plugin(key: str) -> bool:
    """Whether a dotted key is the `name` of a plug-in section."""
    section, _, leaf = key.partition(".")
    return leaf == "name" and section in PLUGIN_SECTIONS


def _single(key: str, words: Sequence[str]) -> str:
    """Return the one word of an override that takes one."""
    if len(words) != 1:
        got = f"{len(words)}: {' '.join(words)}" if words else "none"
        raise RecipeError(
            f"--{key}: takes one value, got {got} (positional arguments come before the overrides)"
        )
    return words[0]


def _switch_plugin(merged: dict[str, Any], section: str, name: str) -> None:
    """Name another plug-in in a raw recipe and drop the keys that only the former one knows."""
    if section == "refiner" and name in _EMPTY:
        merged["refiner"] = None
        return
    known = plugins.load(PLUGIN_SECTIONS[section], name).Config.model_fields
    former = merged.get(section)
    kept = dict(former) if isinstance(former, Mapping) else {}
    if kept.get("name") != name:
        kept = {key: value for key, value in kept.items() if key in known}
        if section == "backbone":
            kept.pop("weights", None)
    merged[section] = {**kept, "name": name}


def _place(merged: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set one value of a raw recipe, making sections on the way."""
    at = merged
    for key in path[:-1]:
        inner = at.get(key)
        at[key] = dict(inner) if isinstance(inner, Mapping) else {}
        at = at[key]
    at[path[-1]] = value


def _shape(kind: type[BaseModel], key: str, words: Sequence[str]) -> object:
    """Turn the words of one override into none, a switch, a list or one text, as its type asks."""
    options = list(_options(_annotation(kind, key.split("."))))
    if len(words) == 1 and words[0].lower() in _EMPTY and type(None) in options:
        return None
    if any(typing.get_origin(option) in (tuple, list) for option in options):
        return list(words)
    if not words and bool in options:
        return True
    return _single(key, words)


def _annotation(kind: type[BaseModel], path: Sequence[str]) -> object:
    """Type of the value that `path` leads to; None where the schema has no such key."""
    found: object = kind
    for key in path:
        field = _model_fields(found).get(key)
        if field is None:
            return None
        found = field.annotation
    return found


def _model_fields(annotation: object) -> Mapping[str, Any]:
    """Fields of the model an annotation holds, also within `X | None`; empty if it holds none."""
    for option in _options(annotation):
        if isinstance(option, type) and issubclass(option, BaseModel):
            return option.model_fields
    return {}


def _options(annotation: object) -> Iterator[object]:
    """Members of a union, or the annotation itself."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        yield from typing.get_args(annotation)
    else:
        yield annotation


def _dotted_keys(kind: type[BaseModel]) -> Iterator[str]:
    """`section.key` of everything in a recipe model."""
    for section, field in kind.model_fields.items():
        for key in _model_fields(field.annotation):
            yield f"{section}.{key}"


def _blame(line: str, overrides: Overrides, where: str) -> str:
    """Name the option in place of the recipe file where the fault is an overridden key's."""
    fault = line.removeprefix(f"{where}: ")
    for key in overrides:
        for named in (key, key.partition(".")[0]):
            if fault.startswith(f"unknown key '{named}'"):
                return fault.replace(f"key '{named}'", f"option '--{key}'", 1)
        if fault.startswith((f"{key}:", f"{key}.")):
            return f"--{fault}"
    return line
