"""Override the keys of a recipe from the command line: `optim.lr=1e-4 predict.scales=1.0,0.5`.

A word is `KEY=VALUE`, and the key's type in the schema says how to read the value:

- a list takes its items separated by commas, with or without brackets: `predict.scales=1.0` is a
  list of one, and `data.classes=` is an empty list;
- a key that may be empty takes `none` or `null`;
- a switch takes true, false, yes, no, on, off, 1 or 0;
- text stays as it is, so `method.affinity=off` is the text `off`.

`method.name=cam`, or `method=cam` for short, switches a plug-in: the section keeps the keys that
the new plug-in also has, except the old backbone's weights. `refiner=none` removes the section.
`stages.seg.optim.steps=10` changes one stage; without `stages.NAME` an override applies to every
stage that does not set the key itself.
"""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from tag2mask import plugins
from tag2mask.config.keys import (
    annotation_at,
    dotted_keys,
    fields_by_key,
    section_model,
    union_members,
)
from tag2mask.config.recipe import PLUGIN_SECTIONS, Recipe, parse_recipe, recipe_type, stage_recipe
from tag2mask.config.stages import StageConfig
from tag2mask.errors import RecipeError, UnknownPluginError, did_you_mean

Overrides = Mapping[str, str]
"""Dotted key -> the text after its equals sign."""
_WORD = re.compile(r"([A-Za-z_][\w-]*(?:\.[\w-]+)*)=(.*)", re.DOTALL)
_NONE = ("none", "null")
_OTHER_WORDS = {
    "epochs": "optim.steps",
    "imgsz": "data.crop_px",
    "iterations": "optim.steps",
    "learning_rate": "optim.lr",
    "lr0": "optim.lr",
}
"""What other programs call a key -> the key; its value may count something else."""
_CLOSE = 0.8
"""Similarity from which a mistyped word counts as a key, where options are similar too."""
_SWITCH = ("true", "false", "yes", "no", "on", "off", "1", "0")


def is_override(word: str) -> bool:
    """Return whether a word of the command line is `KEY=VALUE`."""
    return _WORD.fullmatch(word) is not None


def parse_overrides(words: Iterable[str]) -> dict[str, str]:
    """Split words `KEY=VALUE` into values by dotted key; hyphens in keys count as underscores.

    Raises:
        RecipeError: One line per word that is no override and per key that appears twice.
    """
    overrides: dict[str, str] = {}
    problems = []
    for word in words:
        match = _WORD.fullmatch(word)
        if match is None:
            problems.append(f"'{word}' is not KEY=VALUE")
            continue
        key = _full_key(match[1].replace("-", "_"))
        if key in overrides:
            problems.append(f"{key}: is set twice, to '{overrides[key]}' and to '{match[2]}'")
        overrides.setdefault(key, match[2])
    if problems:
        raise RecipeError(*problems)
    return overrides


def override_texts(values: Mapping[str, object]) -> dict[str, str]:
    """Write Python values as the command line does, and check their keys.

    Args:
        values: Dotted key -> value: text, number, switch, None, or a list of these.

    Raises:
        RecipeError: One line per key that is none.
    """
    return parse_overrides(f"{key}={_as_text(value)}" for key, value in values.items())


def apply_overrides(raw: object, overrides: Overrides, where: str) -> Recipe:
    """Override keys of a raw recipe and check the result.

    Args:
        raw: Content of the YAML file; it is not modified.
        overrides: From `parse_overrides`.
        where: Names the recipe in messages; problems of overridden keys name the key alone.

    Raises:
        RecipeError: One line per problem.
    """
    if not isinstance(raw, Mapping) or not overrides:
        return parse_recipe(raw, where)
    merged = {key: dict(part) if isinstance(part, Mapping) else part for key, part in raw.items()}
    plugin_names = {key: text for key, text in overrides.items() if _names_plugin(key)}
    values = {key: text for key, text in overrides.items() if key not in plugin_names}
    staged = {key: text for key, text in values.items() if key.startswith("stages.")}
    _raise_together(_switch_plugin(merged, key, text) for key, text in plugin_names.items())
    kind = recipe_type(merged, where)
    _raise_together(
        _set_value(merged, kind, key, values[key], overrides) for key in values if key not in staged
    )
    try:
        if staged:
            recipe = parse_recipe(merged, where)
            _raise_together(
                _set_stage_value(merged, recipe, key, text) for key, text in staged.items()
            )
        return parse_recipe(merged, where)
    except RecipeError as error:
        lines = (_without_file(line, overrides, where) for line in error.problems)
        raise RecipeError(*lines) from error


def suggest_key(name: str, values: Sequence[str], kind: type[BaseModel]) -> str:
    """Return " Did you mean optim.lr=1e-4?" for a mistyped key, or an empty string.

    Args:
        name: A key with a wrong section or none (`lr`), or one that is not written `KEY=VALUE`.
        values: The words that follow it.
        kind: Model of the recipe.
    """
    known = list(dotted_keys(kind))
    if is_key(name, kind):
        near = [name]
    elif "." in name:
        near = difflib.get_close_matches(name, known, n=1)
    else:
        near = [key for key in known if key.rpartition(".")[2] == name]
        near = near or difflib.get_close_matches(name, PLUGIN_SECTIONS, n=1)
        if not near and name in _OTHER_WORDS:
            return f" Did you mean {_OTHER_WORDS[name]}=VALUE?"
    words = " or ".join(f"{key}={_join_values(key, values, kind)}" for key in near)
    return f" Did you mean {words}?" if words else ""


def similar_key(name: str, values: Sequence[str], kind: type[BaseModel]) -> str:
    """Return " Did you mean optim.steps=3?" for a key without section and with a slip, or nothing.

    Args:
        name: As typed, such as `step`.
        values: The words that follow it.
        kind: Model of the recipe.
    """
    last = {key.rpartition(".")[2] for key in dotted_keys(kind)}
    near = difflib.get_close_matches(name, sorted(last), n=1, cutoff=_CLOSE)
    return suggest_key(near[0], values, kind) if near else ""


def is_key(name: str, kind: type[BaseModel]) -> bool:
    """Return whether a recipe has the key; every key of a stage counts."""
    path = _full_key(name).split(".")
    if path[0] == "stages":
        return len(path) > 2
    return len(path) > 1 and annotation_at(kind, path) is not None


def _as_text(value: object) -> str:
    """Write one value: lists with commas, `none` for None."""
    if isinstance(value, list | tuple):
        return ",".join(_as_text(item) for item in value)
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _join_values(key: str, values: Sequence[str], kind: type[BaseModel]) -> str:
    """Write the words after a key as its value: a list takes all of them, other keys the first."""
    members = union_members(annotation_at(kind, _full_key(key).split(".")))
    if _is_list(members):
        return ",".join(values)
    if bool in members and (not values or values[0].lower() not in _SWITCH):
        return "true"
    return values[0] if values else "VALUE"


def _is_list(members: Iterable[object]) -> bool:
    return any(typing.get_origin(member) in (tuple, list) for member in members)


def _full_key(key: str) -> str:
    """Complete the short form of a plug-in's name: `method` is `method.name`."""
    match key.split("."):
        case [section] | ["stages", _, section] if section in PLUGIN_SECTIONS:
            return f"{key}.name"
        case _:
            return key


def _names_plugin(key: str) -> bool:
    """Return whether a key is the `name` of a plug-in section, of the recipe or of a stage."""
    match key.split("."):
        case [section, "name"] | ["stages", _, section, "name"]:
            return section in PLUGIN_SECTIONS
        case _:
            return False


def _raise_together(problems: Iterable[str]) -> None:
    """Raise a RecipeError with all problems that are not empty."""
    lines = [problem for problem in problems if problem]
    if lines:
        raise RecipeError(*lines)


def _switch_plugin(merged: dict[str, Any], key: str, name: str) -> str:
    """Name another plug-in in a raw recipe and drop the keys that it does not have.

    Returns:
        What is wrong, or an empty string.
    """
    *path, _ = key.split(".")
    section = path[-1]
    if path[0] == "stages" and (problem := _stage_problem(merged, key)):
        return problem
    if section == "refiner" and name.lower() in _NONE:
        _set_at(merged, path, None)
        return ""
    try:
        known = plugins.load(PLUGIN_SECTIONS[section], name).Config.model_fields
    except UnknownPluginError as error:
        return f"{key}: {error}"
    former = _value_at(merged, path)
    keys = dict(former) if isinstance(former, Mapping) else {}
    if keys.get("name") != name:
        keys = {key: value for key, value in keys.items() if key in known}
        if section == "backbone":
            keys.pop("weights", None)
    _set_at(merged, path, {**keys, "name": name})
    return ""


def _set_value(
    merged: dict[str, Any], kind: type[BaseModel], key: str, text: str, overrides: Overrides
) -> str:
    """Set one key of a raw recipe.

    Returns:
        What is wrong, or an empty string.
    """
    path = key.split(".")
    annotation = annotation_at(kind, path)
    if len(path) == 1 and annotation is None:
        return f"unknown key '{key}'.{suggest_key(key, [text], kind)}"
    if len(path) == 1 and section_model(annotation) is not None:
        first = next(dotted_keys(annotation))
        return f"{key}: is a section; set one of its keys, such as {key}.{first}=VALUE"
    if path[0] == "refiner" and overrides.get("refiner.name", "").lower() in _NONE:
        return f"{key}: has no effect, because refiner=none removes the section"
    _set_at(merged, *_read_value(annotation, path, text))
    return ""


def _set_stage_value(merged: dict[str, Any], recipe: Recipe, key: str, text: str) -> str:
    """Set one key of a stage, whose own recipe says how to read the value.

    Returns:
        What is wrong, or an empty string.
    """
    if problem := _stage_problem(merged, key):
        return problem
    _, stage, *path = key.split(".")
    kind = StageConfig if len(path) < 2 else type(stage_recipe(recipe, stage))
    inner, value = _read_value(annotation_at(kind, path), path, text)
    _set_at(merged, ["stages", stage, *inner], value)
    return ""


def _stage_problem(merged: Mapping[str, Any], key: str) -> str:
    """Return what is wrong with the stage in a key, or an empty string."""
    _, stage, *_ = key.split(".")
    stages = merged.get("stages")
    names = list(stages) if isinstance(stages, Mapping) else []
    if stage in names:
        return ""
    if not names:
        return f"{key}: the recipe has no stages"
    hint = did_you_mean(stage, names)
    return f"{key}: unknown stage '{stage}'.{hint} Known: {', '.join(names)}"


def _read_value(annotation: object, path: Sequence[str], text: str) -> tuple[list[str], object]:
    """Read a text as the type of its key asks; the schema checks what is inside.

    Returns:
        Where the value belongs, which for a section's short form is its `name`, and the value.
    """
    members = union_members(annotation)
    if text.lower() in _NONE and type(None) in members:
        return [*path], None
    if "name" in fields_by_key(annotation):
        return [*path, "name"], text
    if _is_list(members):
        items = text.strip().removeprefix("[").removesuffix("]")
        return [*path], [item.strip() for item in items.split(",")] if items.strip() else []
    for member in members:
        if typing.get_origin(member) is Literal:  # also holds numbers, which are typed as text
            choices = {str(choice): choice for choice in typing.get_args(member)}
            return [*path], choices.get(text, text)
    return [*path], text


def _value_at(merged: Mapping[str, Any], path: Sequence[str]) -> object:
    """Return the value at a place of a raw recipe; None if there is none."""
    value: object = merged
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _set_at(merged: dict[str, Any], path: Sequence[str], value: object) -> None:
    """Set one value of a raw recipe; copy the sections on the way, or make them."""
    section = merged
    for key in path[:-1]:
        inner = section.get(key)
        section[key] = dict(inner) if isinstance(inner, Mapping) else {}
        section = section[key]
    section[path[-1]] = value


def _without_file(line: str, overrides: Overrides, where: str) -> str:
    """Drop the file's name from a problem that an overridden key causes."""
    problem = line.removeprefix(f"{where}: ")
    for key in overrides:
        parts = key.split(".")
        for name in (".".join(parts[:count]) for count in range(len(parts), 0, -1)):
            if problem.startswith(f"unknown key '{name}'"):
                return problem.replace(f"key '{name}'", f"key '{key}'", 1)
        if problem.startswith((f"{key}:", f"{key}.")):
            return problem
    return line
