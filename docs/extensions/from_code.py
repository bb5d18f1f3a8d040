"""Directives that read the code: keys of recipes, public names, classes of plug-ins.

- `recipe-keys FOLDER NAME` lists the keys of one plug-in with default and meaning, as
  `tag2mask list keys RECIPE` does; `recipe-keys SECTION` those of `optim`, `predict` or `run`.
- `public-names MODULE` documents every name in `__all__` of a module.
- `plugin-classes FOLDER` documents the class and the settings of every plug-in of a folder.
"""

import importlib
import inspect
from collections.abc import Iterator
from typing import ClassVar

from docutils import nodes
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tag2mask import plugins
from tag2mask.config.recipe import PLUGIN_SECTIONS, Recipe

SECTIONS = {folder: section for section, folder in PLUGIN_SECTIONS.items()}
"""Plug-in folder -> section of a recipe."""


def key_rows(config: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    """Yield dotted key, default and meaning of each key of a model and of the models inside it."""
    for name, field in config.model_fields.items():
        key = f"{prefix}.{field.alias or name}"
        if inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel):
            yield from key_rows(field.annotation, key)
        elif name != "name":
            yield key, default_text(field), " ".join((field.description or "").split())


def default_text(field: FieldInfo) -> str:
    """Write a default as one types it on the command line."""
    value = field.get_default(call_default_factory=True)
    if field.is_required():
        return "required"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value)) or "empty"
    return "none" if value is None else str(value)


class FromCode(SphinxDirective):
    """A directive that writes Markdown and has it parsed."""

    required_arguments: ClassVar[int] = 1
    optional_arguments: ClassVar[int] = 1

    def run(self) -> list[nodes.Node]:
        """Parse what `markdown` returns."""
        return self.parse_text_to_nodes(self.markdown(*self.arguments))

    def markdown(self, name: str, plugin: str = "") -> str:
        """Return Markdown for the arguments of the directive."""
        raise NotImplementedError


class RecipeKeys(FromCode):
    """A table of keys."""

    def markdown(self, name: str, plugin: str = "") -> str:
        """Return the table of a plug-in's keys, or of a section's."""
        if plugin:
            config, section = plugins.load(name, plugin).Config, SECTIONS[name]
        else:
            config, section = Recipe.model_fields[name].annotation, name
        rows = [
            f"| `{key}` | `{default}` | {meaning.replace('|', chr(92) + '|')} |"
            for key, default, meaning in key_rows(config, section)
        ]
        return "\n".join(["| key | default | meaning |", "|---|---|---|", *rows])


class PublicNames(FromCode):
    """Documentation of a module's public names."""

    def markdown(self, name: str, plugin: str = "") -> str:
        """Return one autodoc directive for each name in `__all__`."""
        module = importlib.import_module(name)
        return "\n".join(
            documented(f"{name}.{public}", getattr(module, public))
            for public in module.__all__
            if not public.startswith("__")
        )


class PluginClasses(FromCode):
    """Documentation of all plug-ins of a folder."""

    def markdown(self, name: str, plugin: str = "") -> str:
        """Return one autodoc directive for each class."""
        classes = [plugins.load(name, one) for one in plugins.available(name)]
        paths = [(f"{one.__module__}.{one.__qualname__}", one) for one in classes]
        return "\n".join(documented(path, one) for path, one in paths)


def documented(path: str, value: object) -> str:
    """Return the directive that documents one object."""
    if inspect.isclass(value):
        kind = "exception" if issubclass(value, Exception) else "class"
        lines = [f".. auto{kind}:: {path}", "   :members:"]
    elif callable(value):
        lines = [f".. autofunction:: {path}"]
    else:
        lines = [f".. py:data:: {path}", f"   :value: {value!r}"]
    return "\n".join(["```{eval-rst}", *lines, "```"])


def hide_settings_signature(
    app: Sphinx, what: str, name: str, obj: object, options: object, signature: str, returns: str
) -> tuple[str, str] | None:
    """Leave out the signature of settings: it repeats every field."""
    if inspect.isclass(obj) and issubclass(obj, BaseModel):
        return "", ""
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.connect("autodoc-process-signature", hide_settings_signature)
    app.add_directive("recipe-keys", RecipeKeys)
    app.add_directive("public-names", PublicNames)
    app.add_directive("plugin-classes", PluginClasses)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
