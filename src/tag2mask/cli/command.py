"""A command of the command line: typed options by Typer, recipe keys KEY=VALUE, examples."""

from __future__ import annotations

import importlib
import inspect
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from typer.core import TyperCommand

from tag2mask.cli.launch import is_first, launched_processes
from tag2mask.cli.words import sort_words
from tag2mask.errors import RecipeError, Tag2MaskError

if TYPE_CHECKING:  # pydantic, which --help need not import
    from pydantic import BaseModel

    from tag2mask.config.overrides import Overrides

HELP_OPTIONS = {"help_option_names": ["-h", "--help"]}


class Line(NamedTuple):
    """What a command finds in `ctx.obj`."""

    command: str
    """The line as typed, for records."""
    overrides: Overrides
    """Its recipe keys."""


class Command(TyperCommand):
    """A Typer command that also takes recipe keys; they reach its function in `ctx.obj`."""

    examples: str = ""
    """Lines at the end of its help."""
    sections: Sequence[str] = ()
    """Sections of a recipe whose keys it takes; empty: it takes no keys."""
    shares_work: bool = False
    """Whether several processes of a launcher share its work."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command.

        Raises:
            Tag2MaskError: If a launcher started it in several processes, which would all do the
                same work.
        """
        count = launched_processes()
        if count > 1 and not self.shares_work:
            if not is_first():
                raise SystemExit(Tag2MaskError.exit_code)
            raise Tag2MaskError(
                f"{self.name}: the launcher started {count} processes, which would all do the same "
                f"work; start it once: tag2mask {self.name} ..."
            )
        return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take the recipe keys out of the words, and leave the others to Typer."""
        if ctx.resilient_parsing:  # the shell asks for completions of an unfinished line
            return super().parse_args(ctx, args)
        options = {
            name: 0 if getattr(option, "is_flag", False) else option.nargs
            for option in self.get_params(ctx)
            if option.param_type_name == "option"
            for name in option.opts
        }
        plain, keys = sort_words(args, options, recipe_schema if self.sections else None)
        command = shlex.join([*ctx.command_path.split(), *args])
        ctx.obj = Line(command, self._parse_keys(keys) if keys else {})
        return super().parse_args(ctx, plain)

    def _parse_keys(self, keys: Sequence[str]) -> Overrides:
        """Read the recipe keys and reject those of sections that the command does not take."""
        from tag2mask.config.overrides import parse_overrides
        from tag2mask.config.stages import SECTIONS

        overrides = parse_overrides(keys)
        fixed = {*SECTIONS, "run", "stages"} - set(self.sections)
        allowed = ", ".join(f"{section}.KEY" for section in self.sections)
        problems = [
            f"{key}: is fixed by training; '{self.name}' takes {allowed}"
            for key in overrides
            if key.partition(".")[0] in fixed
        ]
        if problems:
            raise RecipeError(*problems)
        return overrides

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the usage line as words: RUN, [RECIPE], IMAGE..., [KEY=VALUE]..."""
        pieces = ["[OPTIONS]"]
        for argument in self.get_params(ctx):
            if argument.param_type_name == "argument":
                name = getattr(argument, "metavar", None) or str(argument.name).upper()
                name = name if argument.required else f"[{name}]"
                pieces.append(name if argument.nargs == 1 else f"{name}...")
        return [*pieces, "[KEY=VALUE]..."] if self.sections else pieces

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, and the examples at its end."""
        super().format_help(ctx, formatter)
        formatter.write(f"Examples:\n{self.examples}\n")


def build_command(name: str) -> Command:
    """Import one command's file and make its function `run` a command."""
    module = importlib.import_module(f"tag2mask.cli.{name}")
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    text = help_text(module.run.__doc__ or "")
    app.command(name, cls=Command, help=text, context_settings=HELP_OPTIONS)(module.run)
    command = typer.main.get_command(app)
    assert isinstance(command, Command)
    command.examples = module.EXAMPLES
    command.sections = getattr(module, "KEY_SECTIONS", ())
    command.shares_work = getattr(module, "SHARES_WORK", False)
    return command


def help_text(docstring: str) -> str:
    """Join the lines of each paragraph, so that the terminal wraps them at its own width."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def recipe_schema(plain: Sequence[str]) -> type[BaseModel]:
    """Return the model of the recipe that a line names first, as a recipe or a run folder.

    It serves for hints only, so a line without a usable recipe gets the keys that all recipes have.
    """
    from tag2mask.config.recipe import Recipe, recipe_path, recipe_type
    from tag2mask.io.yaml_files import read_yaml

    first = next((word for word in plain if not word.startswith("-")), "")
    try:
        run = Path(first) / "recipe.yaml"
        raw = read_yaml(run if run.is_file() else recipe_path(first))
        return recipe_type(raw) if isinstance(raw, dict) else Recipe
    except RecipeError:
        return Recipe
