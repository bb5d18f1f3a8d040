"""Dotted overrides of a recipe: `--optim.lr 1e-4 --predict.scales 1.0 0.5 --predict.flip false`.

The recipe's own schema checks them, with all other faults, so that a mistyped key gets a hint and a
value out of range says which range. Words are kept as text for the schema to read; only the shape
comes from here:

- words make a list, for keys that hold one (`--predict.scales 1.0 0.5`; one word: a list of one);
- a switch takes `true` or `false`, and nothing means `true`;
- `none` is no value, for keys that may be empty; `--refiner none` removes the section;
- `--method.name cam` (or `--method cam`) switches the plug-in: those keys of the section stay that
  the new plug-in has too, but not the old backbone's weights;
- `--stages.seg.optim.steps 10` reaches one stage of a recipe; without `stages.NAME` an override
  reaches every stage that does not set the key itself.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from tag2mask import plugins
from tag2mask.config.recipe import PLUGIN_SECTIONS, Recipe, parse_recipe, recipe_type, stage_recipe
from tag2mask.config.stages import StageConfig
from tag2mask.errors import RecipeError, did_you_mean

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
        if "." in flag or flag in ("refiner", "method"):
            key = flag.replace("-", "_")
            if key in ("refiner", "method") or (
                key.startswith("stages.") and key.endswith(".refiner")
            ):
                key = f"{key}.name"
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
    plain = {key: words for key, words in overrides.items() if key not in switched}
    staged = {key: words for key, words in plain.items() if key.startswith("stages.")}
    for key, words in switched.items():
        _switch_plugin(merged, key, words)
    kind = recipe_type(merged, where)
    for key, words in plain.items():
        if key not in staged:
            _place(merged, key.split("."), _shape(_annotation(kind, key.split(".")), key, words))
    try:
        if staged:
            resolve_inference_config = parse_recipe(merged, where)
            for key, words in staged.items():
                _place_in_stage(merged, resolve_inference_config, key, words)
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
    """Whether a dotted key is the `name` of a plug-in section, of the recipe or of a stage."""
    match key.split("."):
        case [section, "name"] | ["stages", _, section, "name"]:
            return section in PLUGIN_SECTIONS
        case _:
            return False


def _single(key: str, words: Sequence[str]) -> str:
    """Return the one word of an override that takes one."""
    if len(words) != 1:
        got = f"{len(words)}: {' '.join(words)}" if words else "none"
        raise RecipeError(
            f"--{key}: takes one value, got {got} (positional arguments come before the overrides)"
        )
    return words[0]


def _switch_plugin(merged: dict[str, Any], key: str, words: Sequence[str]) -> None:
    """Name another plug-in in a raw recipe and drop the keys that only the former one knows."""
    *path, _ = key.split(".")
    section, name = path[-1], _single(key, words)
    if path[0] == "stages":
        _known_stage(merged, key)
    if section == "refiner" and name in _EMPTY:
        _place(merged, path, None)
        return
    known = plugins.load(PLUGIN_SECTIONS[section], name).Config.model_fields
    former = _at(merged, path)
    kept = dict(former) if isinstance(former, Mapping) else {}
    if kept.get("name") != name:
        kept = {key: value for key, value in kept.items() if key in known}
        if section == "backbone":
            kept.pop("weights", None)
    _place(merged, path, {**kept, "name": name})


def _place_in_stage(
    merged: dict[str, Any], resolve_inference_config: Recipe, key: str, words: Sequence[str]
) -> None:
    """Set one value of a stage; its shape is that of the stage's own recipe."""
    _known_stage(merged, key)
    _, stage, *path = key.split(".")
    if path == ["from"]:
        _place(merged, key.split("."), list(words))
        return
    kind = StageConfig if len(path) < 2 else type(stage_recipe(resolve_inference_config, stage))
    _place(merged, key.split("."), _shape(_annotation(kind, path), key, words))


def _known_stage(merged: Mapping[str, Any], key: str) -> None:
    """Raise a RecipeError if a dotted key names no stage of the recipe."""
    _, stage, *_ = key.split(".")
    known = merged.get("stages")
    if not isinstance(known, Mapping) or stage not in known:
        names = list(known) if isinstance(known, Mapping) else []
        told = f"Known stages: {', '.join(names)}" if names else "The recipe has no stages"
        raise RecipeError(f"unknown option '--{key}'.{did_you_mean(stage, names)} {told}")


def _at(merged: Mapping[str, Any], path: Sequence[str]) -> object:
    """What a raw recipe holds at a place; None if nothing."""
    found: object = merged
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _place(merged: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set one value of a raw recipe, making sections on the way."""
    at = merged
    for key in path[:-1]:
        inner = at.get(key)
        at[key] = dict(inner) if isinstance(inner, Mapping) else {}
        at = at[key]
    at[path[-1]] = value


def _shape(annotation: object, key: str, words: Sequence[str]) -> object:
    """Turn the words of one override into none, a switch, a list or one text, as its type asks."""
    options = list(_options(annotation))
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
    problem = line.removeprefix(f"{where}: ")
    for key in overrides:
        parts = key.split(".")
        for named in (".".join(parts[:count]) for count in range(len(parts), 0, -1)):
            if problem.startswith(f"unknown key '{named}'"):
                return problem.replace(f"key '{named}'", f"option '--{key}'", 1)
        if problem.startswith((f"{key}:", f"{key}.")):
            return f"--{problem}"
    return line
