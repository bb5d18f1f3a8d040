"""Render the Markdown pages of this folder as HTML: `python docs/build.py OUT`."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import markdown

PAGES = ("index", "own-data", "methods", "results", "faq", "licenses")
TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>
body {{ max-width: 50rem; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.5 sans-serif }}
pre {{ background: #f4f4f4; padding: .8rem; overflow-x: auto }}
table {{ border-collapse: collapse }} td, th {{ border: 1px solid #ccc; padding: .2rem .5rem }}
</style></head><body><nav>{links}</nav>
{body}
</body></html>
"""


def build(source: Path, out: Path) -> None:
    """Render every page of `source`, first those of PAGES in this order, into the folder `out`."""
    found = sorted(path.stem for path in source.glob("*.md"))
    names = [*PAGES, *(name for name in found if name not in PAGES)]
    links = " · ".join(f'<a href="{name}.html">{name}</a>' for name in names)
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        text = (source / f"{name}.md").read_text(encoding="utf-8")
        body = markdown.markdown(text, extensions=["tables", "fenced_code", "toc"])
        body = re.sub(r'href="([\w-]+)\.md(#[^"]*)?"', r'href="\1.html\2"', body)
        title = text.split("\n", 1)[0].removeprefix("# ")
        page = TEMPLATE.format(title=title, links=links, body=body)
        (out / f"{name}.html").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    build(Path(__file__).parent, Path(sys.argv[1]))
