"""The words of the page: each term links to its explanation at the end of the page."""

from __future__ import annotations

import re
from typing import NamedTuple

from markupsafe import Markup, escape

from tag2mask.report.terms import PHRASES, WORDS, Term

_PHRASE = re.compile(rf"\b({'|'.join(map(re.escape, PHRASES))})\b")


class Glossary:
    """Links terms of one page, and remembers which ones need an explanation."""

    def __init__(self) -> None:
        """Start without terms."""
        self._used: dict[str, Term] = {}

    def link(self, key: str, text: str = "") -> Markup:
        """Return a link to the explanation of a term.

        Args:
            key: Of `WORDS`.
            text: What the page shows; empty: the term itself.

        Raises:
            KeyError: If the term has no explanation.
        """
        self._used[key] = WORDS[key]
        shown = escape(text or WORDS[key].label)
        return Markup('<a class="word" href="#word-{}">{}</a>').format(key, shown)

    def link_phrases(self, sentence: str) -> Markup:
        """Link the terms in a finished sentence, each where it comes first."""
        parts, linked = _PHRASE.split(sentence), set()
        for index in range(1, len(parts), 2):
            key = PHRASES[parts[index]]
            if key not in linked:
                parts[index] = self.link(key, parts[index])
                linked.add(key)
        return Markup("").join(parts)

    def entries(self) -> list[GlossaryEntry]:
        """Return the terms that were linked, in the order of the alphabet."""
        return sorted(
            (GlossaryEntry(key, *term) for key, term in self._used.items()),
            key=lambda entry: entry.label.lower(),
        )


class GlossaryEntry(NamedTuple):
    """One explained term."""

    key: str
    label: str
    explanation: str
