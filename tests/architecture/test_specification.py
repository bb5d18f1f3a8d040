"""Citations of docs/specification.md name sections, decisions and parts that exist there."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parents[2]
SPECIFICATION = REPOSITORY / "docs" / "specification.md"
FOLDERS = ("src", "tests", "benchmarks", "docs")
SUFFIXES = {".py", ".yaml", ".md"}
FEWEST_CITATIONS = 100
DECISIONS = [f"R{number}" for number in range(1, 21)]

WRAP = re.compile(r"\s*\n[ \t]*(?:(?:#:?|>)[ \t]*)?")
"""A line break inside prose, with the marker of a comment or a quotation on the next line."""
HEAD = re.compile(r"\bSpecification (?=R?\d)")
NUMBER = re.compile(r"R?\d+(?:\.\d+)*")
PART = re.compile(r" ?\((\d+)\)")
REMARK = re.compile(r" ?\([^()]*\)")
LINK = re.compile(r", and |, | and | to ")
OLD_FORMS = re.compile(
    r"(?i:methods specification)"
    r"|\bspecification,? (?:section )?R?\d"
    r"|(?i:\b(?:sections?|decisions?)\b[^.\n]{0,30}\bof the (?:\w+ )?specification)"
)

ANCHOR = re.compile(r"^\(spec-([\w-]+)\)=$")
HEADING = re.compile(r"^(#+) (?:(\d+(?:\.\d+)?)|(R\d+):) ")


class Cited(NamedTuple):
    """One item of a citation."""

    number: str
    """`4.3` or `R18`."""
    part: str = ""
    """`3` of `R18 (3)`, or empty."""


def cited_from(text: str, start: int) -> list[Cited]:
    """Read the list of items that begins at `start`: numbers, parts, ranges, remarks between."""
    found: list[Cited] = []
    link = ""
    while True:
        number = NUMBER.match(text, start)
        part = PART.match(text, start) if found else None
        if number:
            item = Cited(number.group())
            start = number.end()
        elif part:
            item = Cited(found[-1].number, part.group(1))
            start = part.end()
        else:
            return found
        found += between(found[-1], item) if link == " to " else []
        found.append(item)
        if first_part := PART.match(text, start):
            found[-1] = found[-1]._replace(part=first_part.group(1))
            start = first_part.end()
        elif remark := REMARK.match(text, start):
            start = remark.end()
        separator = LINK.match(text, start)
        if not separator:
            return found
        link, start = separator.group(), separator.end()


def between(first: Cited, last: Cited) -> list[Cited]:
    """The items inside a range such as `R1 to R20` or `(3) to (5)`, without its ends."""
    if last.part:
        inside = range(int(first.part or 0) + 1, int(last.part))
        return [Cited(last.number, str(part)) for part in inside]
    stem, _, start = first.number.rpartition("." if "." in first.number else "R")
    joint = "." if "." in first.number else "R" * first.number.startswith("R")
    end = last.number.rpartition(joint)[2] if joint else last.number
    return [Cited(f"{stem}{joint}{number}") for number in range(int(start) + 1, int(end))]


def unwrapped(text: str) -> str:
    """The text with every line break in a run of prose turned into one space."""
    return WRAP.sub(" ", text)


def citations(text: str) -> Iterator[tuple[str, list[Cited]]]:
    """Every citation of a file's text: its words, for the message, and its items."""
    flat = unwrapped(text)
    for head in HEAD.finditer(flat):
        yield flat[head.start() : head.start() + 60], cited_from(flat, head.end())


def sections(page: str) -> dict[str, str]:
    """Anchor -> the text up to the next anchor; `2.9` for `(spec-2-9)=`, `R8` for `(spec-R8)=`."""
    parts = re.split(r"^\(spec-([\w-]+)\)=$", page, flags=re.MULTILINE)
    names = [name.replace("-", ".") for name in parts[1::2]]
    assert len(names) == len(set(names)), "an anchor appears twice"
    return dict(zip(names, parts[2::2], strict=True))


PAGE = SPECIFICATION.read_text(encoding="utf-8")
SECTIONS = sections(PAGE)


def faults_of(items: list[Cited]) -> list[str]:
    missing = [item.number for item in items if item.number not in SECTIONS]
    return missing + [
        f"{item.number} ({item.part})"
        for item in items
        if item.part and f"**({item.part})**" not in SECTIONS.get(item.number, "")
    ]


def texts() -> Iterator[tuple[str, str]]:
    """Name and text of every file that may cite, without this one, whose examples are wrong."""
    for folder in FOLDERS:
        for path in sorted((REPOSITORY / folder).rglob("*")):
            if path.suffix in SUFFIXES and path != Path(__file__):
                yield path.relative_to(REPOSITORY).as_posix(), path.read_text(encoding="utf-8")


def test_cited_sections_exist():
    faults, found = [], 0
    for name, text in texts():
        for words, items in citations(text):
            found += 1
            if missing := faults_of(items):
                faults.append(f"{name}: no {', '.join(missing)} in the specification: '{words}'")
    assert not faults, "\n".join(faults)
    assert found >= FEWEST_CITATIONS


def test_no_old_form_of_citation_is_left():
    faults = [
        f"{name}: write 'Specification 2.9' or 'Specification R8', not '{flat[old.start() :][:60]}'"
        for name, text in texts()
        for flat in (unwrapped(text),)
        for old in OLD_FORMS.finditer(flat)
    ]
    assert not faults, "\n".join(faults)


def test_every_numbered_heading_follows_its_anchor():
    lines = [line for line in PAGE.splitlines() if line]
    headings = {place: found for place, line in enumerate(lines) if (found := HEADING.match(line))}
    assert headings
    named = []
    for place, heading in headings.items():
        _, section, decision = heading.groups()
        anchor = ANCHOR.match(lines[place - 1])
        assert anchor, f"no anchor before '{lines[place]}'"
        assert anchor.group(1) == (decision or section.replace(".", "-")), lines[place]
        depth = 4 if decision else 3 if "." in section else 2
        assert len(heading.group(1)) == depth, lines[place]
        named.append(decision or section)
    assert named == list(SECTIONS), "an anchor stands before no numbered heading"


def test_sections_are_numbered_without_a_gap():
    numbers = [name for name in SECTIONS if not name.startswith("R")]
    assert [name for name in numbers if "." not in name] == [str(number) for number in range(9)]
    for chapter in range(9):
        inner = [name for name in numbers if name.startswith(f"{chapter}.")]
        assert inner == [f"{chapter}.{number}" for number in range(1, len(inner) + 1)]
    assert [name for name in SECTIONS if name.startswith("R")] == DECISIONS


def test_departures_have_one_form():
    found = re.findall(r"\*\*Departure\.\*\*.*", PAGE)
    lead = "**Departure.** The code departs until the next minor version: "
    assert all(unwrapped(line).startswith(lead) for line in found), found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Specification 4.3.", ["4.3"]),
        ("Specification 6: steps along the stencil", ["6"]),
        ("Specification 2.9: m(t) = 1 - (1 - t / W)", ["2.9"]),
        ("Specification R8 (`gauss`): no estimator", ["R8"]),
        ("Specification R18 (3)", ["R18 (3)"]),
        (
            "Specification R18 (3) to (5) and 2.11; without",
            ["R18 (3)", "R18 (4)", "R18 (5)", "2.11"],
        ),
        ("Specification 2.2, R18 (1), (2) and 2.11", ["2.2", "R18 (1)", "R18 (2)", "2.11"]),
        ("Specification 2.3 and 2.5 (labels), 2.7 (walk), R18", ["2.3", "2.5", "2.7", "R18"]),
        ("Specification R1 to R4 settle", ["R1", "R2", "R3", "R4"]),
        ("Specification 2.4 to 2.7", ["2.4", "2.5", "2.6", "2.7"]),
        ("Specification 0 to 2", ["0", "1", "2"]),
        ("Specification 4.3 (walks) and\n        6: steps", ["4.3", "6"]),
        ("# Specification\n# 4.4, and\n#   R9.", ["4.4", "R9"]),
        ("> Specification 5.1\n> and 5.3", ["5.1", "5.3"]),
        ("Specification 1, 'Hugging Face mapping'", ["1"]),
    ],
)
def test_items_of_a_citation_are_read(text, expected):
    ((_, items),) = citations(text)
    read = [f"{item.number} ({item.part})" if item.part else item.number for item in items]
    assert read == expected


@pytest.mark.parametrize(
    "text",
    [
        "Specification 4.10",
        "Specification 9",
        "Specification R21",
        "Specification R1 to R22",
        "Specification 2.2, R18 (6)",
        "Specification 2.3 and\n    2.12",
        "Specification 4.3 (walks of PSA), 5.4",
        "Specification 4.1, 15 epochs",
    ],
)
def test_a_citation_of_nothing_is_a_fault(text):
    ((_, items),) = citations(text)
    assert faults_of(items)


@pytest.mark.parametrize(
    "text",
    [
        "AFA, Eq. 3 with methods specification 2.3",
        "Methods\n    specification 4.2: ReLU",
        "see specification R8",
        "the specification, section 2.9",
        "Section 4.1 of the methods specification settles",
        "Decisions R1 to R20 of the specification",
    ],
)
def test_old_forms_are_recognized(text):
    assert OLD_FORMS.search(unwrapped(text))


@pytest.mark.parametrize(
    "text",
    ["Specification 2.9", "the specification taken literally", "decided in the specification."],
)
def test_plain_prose_is_no_old_form(text):
    assert not OLD_FORMS.search(unwrapped(text))
