"""Read XML that another program wrote, or that a person or a crash may have damaged."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from tag2mask.errors import DataError, shorten
from tag2mask.io.text_files import MEBIBYTE, read_text

MOST_BYTES = 16 * MEBIBYTE
_DEFINITIONS = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)
_LONGEST = 100


def read_xml(path: Path) -> ElementTree.Element:
    """Read an XML file in UTF-8, and return its root.

    Definitions of entities are refused, because a small file could become a large text.

    Raises:
        DataError: In one line.
    """
    text = read_text(path, DataError, most_bytes=MOST_BYTES)
    if found := _DEFINITIONS.search(text):
        raise DataError(f"{path}: not read, because it has a {found[0]}>; remove it")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        problem = shorten(str(error), _LONGEST)
        raise DataError(f"{path}: not valid XML ({problem})") from error
