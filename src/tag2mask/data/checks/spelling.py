"""Tags that are probably mistyped: written in two ways, or rare and near a frequent tag."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

_RARE = 2
"""A tag with at most so many images may be a typo."""
_TIMES = 3
"""The tag that was meant has at least so many times as many images."""
_SHORT = 4
"""Tags with at most so many letters differ in a letter without being typos: cat, rat, bat."""
_LONG = range(8, 25)
"""Tags with so many letters may have two typos; longer ones have too many shortened forms."""
_DIGITS = re.compile(r"\d")
_SPACE = re.compile(r"[\s_\-]+")


def spelling_variants(counts: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Return the groups of tags that differ only in case, spaces, hyphens and underscores."""
    groups: dict[str, list[str]] = {}
    for tag in counts:
        groups.setdefault(_SPACE.sub(" ", tag).casefold().strip(), []).append(tag)
    return [tuple(sorted(tags)) for tags in groups.values() if len(tags) > 1]


def probable_typos(counts: Mapping[str, int]) -> dict[str, str]:
    """Return rare tags -> the frequent tag that was probably meant.

    Two tags at most two typos apart become equal when at most two letters of each are left out, so
    only tags that share such a shortened form are compared. Time grows with the number of tags, not
    with that of pairs.

    Args:
        counts: Tag -> number of images.
    """
    shortened: dict[str, list[str]] = {}
    for tag, number in counts.items():
        if number >= _TIMES:
            for form in _shortened_forms(tag):
                shortened.setdefault(form, []).append(tag)
    typos = {}
    for tag, number in counts.items():
        if number > _RARE:
            continue
        near = {other for form in _shortened_forms(tag) for other in shortened.get(form, ())}
        meant = [
            (_typos(tag, other), -counts[other], other)
            for other in near
            if counts[other] >= _TIMES * number and _typos(tag, other) <= _allowed(tag, other)
        ]
        if meant:
            typos[tag] = min(meant)[2]
    return typos


def _allowed(tag: str, other: str) -> int:
    """Return the number of typos that two tags may be apart; numbers are never mistyped."""
    if _DIGITS.findall(tag) != _DIGITS.findall(other):
        return 0
    if len(tag) in _LONG and len(other) in _LONG:
        return 2
    if len(tag) == len(other) <= _SHORT and sorted(tag) != sorted(other):
        return 0
    return 1


def _shortened_forms(tag: str) -> set[str]:
    """Return a tag with one letter left out at each position, or two if it is long."""
    forms = {tag, *_without_letter(tag)}
    if len(tag) in _LONG:
        forms |= {form for one in list(forms) for form in _without_letter(one)}
    return forms


def _without_letter(word: str) -> Iterator[str]:
    return (word[:index] + word[index + 1 :] for index in range(len(word)))


def _typos(first: str, second: str) -> int:
    """Return the smallest number of insertions, deletions, substitutions and swaps of neighbors.

    Source:
        Optimal string alignment, the restricted form of Damerau, CACM 7(3), 1964.
    """
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, start=1):
        older, before, row = before, row, [i]
        for j, other in enumerate(second, start=1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, older[j - 2] + 1)
            row.append(cost)
    return row[-1]
