"""Sphinx settings of the documentation; `make docs` builds it with warnings as errors."""

import re
import sys
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER / "extensions"))

project = "tag2mask"
author = "The tag2mask authors"
copyright = f"2026, {author}"
release = metadata.version("tag2mask")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "from_code",
]
exclude_patterns = ["extensions"]

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"tag2mask {release}"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_type_aliases = {name: name for name in ("Image", "Mask", "ClassSource", "Which")}
napoleon_custom_sections = ["Source"]
napoleon_use_ivar = True
default_role = "code"  # docstrings write `name`, as Markdown does

MARKUP = re.compile(r"(`[^`]*`)")
"""Code of a docstring line; the rest of the line is plain text."""
COLON = "\N{MODIFIER LETTER COLON}"
"""Stands for a colon while napoleon, of priority 500, reads the docstring of an attribute."""


def escape_docstring(app, what, name, obj, options, lines):
    """Keep reStructuredText from reading `|x|`, `a * b` and `name_` as markup."""
    for number, line in enumerate(lines):
        if line.lstrip().startswith((">>>", "...", ".. ", ":", "* ", "- ")):
            continue
        parts = MARKUP.split(line)
        parts[::2] = [re.sub(r"([|*]|(?<=\w)_(?!\w))", r"\\\1", part) for part in parts[::2]]
        lines[number] = "".join(parts)
    if what in ("attribute", "data", "property"):
        lines[:] = [line.replace(":", COLON) for line in lines]


def restore_colons(app, what, name, obj, options, lines):
    """Undo what `escape_docstring` did to keep napoleon from reading `none: no limit` as a type."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def skip_model_settings(app, what, name, obj, skip, options):
    """Leave out pydantic's own attribute."""
    return True if name == "model_config" else None


def setup(app):
    """Connect the handlers of autodoc."""
    app.connect("autodoc-process-docstring", escape_docstring, priority=400)
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
    app.connect("autodoc-skip-member", skip_model_settings)
