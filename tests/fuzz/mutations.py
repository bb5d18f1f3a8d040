"""Strategies that break a file: cut or damage it, exchange a value, put something else there."""

import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st
from PIL import Image as PILImage

Draw = Callable[[Any], Any]
HUGE = 2**70
ODD_VALUES = (
    *(None, True, False, 0, 1, -1, 3, 256, HUGE, -HUGE, 0.5, -0.5, 1e300),
    *(float("nan"), float("inf"), "", " ", "x", "cat", "0", "-1", "1e9", "nan", "x" * 5000),
    *("a\nerror: forged", "\x1b[2J", "[red]", "[/]", "../../x", "/etc/passwd", "\ud800", "\x00"),
    *([], [[]], [None], [1, 2], ["cat", "cat"], [-1] * 7, [HUGE], {}, {"name": "x"}, {"a": {}}),
    *([[0, 0, 1e18, 0, 1e18, 1e18]], [[1, 2, 3, 4, 5, float("nan")]], {"size": [36, 36]}),
    *({"size": [36, 36], "counts": [HUGE, 1]}, {"size": [36, 36], "counts": [2**63, 2**63]}),
    *({"size": [36, 36], "counts": "oooooo0"}, {"size": [HUGE, 1], "counts": "0"}),
)
TEXTS = (
    *(
        "",
        "\n",
        "null",
        "[]",
        "{}",
        "0",
        "true",
        '"x"',
        "NaN",
        "1e999",
        "{",
        "[",
        '{"a": 1, "a": 2}',
    ),
    *("[" * 5000, '{"a":' * 5000, "[" * 60 + "]" * 60, "9" * 5000, '"\\ud800"', "a: b: c", "- -"),
    *("&a [*a]", "a: &a [x]\nb: *a", "!!python/object/apply:os.system ['true']", "? {a: b}\n: c"),
    *("a: 1\na: 2", "<<: {a: 1}", "a: 1:1:1:1", "!!int 'x'", "a: !!binary x", "2026-13-45"),
    *("---\na: 1\n---\nb: 2", "%YAML 9.9\n---\na", "\ta: 1", "a: '", "<a>", "<a><b></a>"),
    *("<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "<?xml version='1.0' encoding='utf-99'?><a/>"),
    *("image,tags", "image,tags,tags\na.png,cat,dog", 'image,tags\n"a.png', "tags\ncat", "a,b\n1"),
    *("image,tags\na.png,c\x00at", "image,tags\n" + "a" * 140_000 + ",cat", "image;tags\na;b"),
)
MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "I;16")
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "ICO", "TGA", "EPS", "PDF", "PCX")
NAMES = (
    *("a\nb", "\x1b[2Jx", "[red]x", "[b", "%s", "x" * 240, "é", "a b", "-x", "a;b", "a,b", "'"),
    *("\u202ex", "a\tb", "a\\b", "~", "a:b", "C#", "+", "a+", "x\u2028y", "error: forged", "…"),
)
OTHER_FILES = ("delete", "folder", "pipe", "dangling", "loop", "zero")


class Change(NamedTuple):
    """What to do with one file."""

    how: str
    """write, rename, or one of `OTHER_FILES`."""
    content: bytes = b""
    name: str = ""


@st.composite
def changes(draw: Draw, content: bytes, kind: str) -> Change:
    """Draw a change of a file of some kind: json, jsonl, text, image or bytes."""
    ways = ["bytes", "other", *{"json": ["tree"] * 5, "jsonl": ["lines"] * 3}.get(kind, [])]
    ways += ["image"] * 4 + ["name"] if kind == "image" else []
    ways += ["text", "words", "letters"] if kind in ("json", "jsonl", "text") else []
    way = draw(st.sampled_from(ways))
    if way == "other":
        return Change(draw(st.sampled_from(OTHER_FILES)))
    if way == "name":
        return Change("rename", name=draw(st.sampled_from(NAMES)))
    broken = {
        "bytes": damaged,
        "tree": exchanged,
        "lines": exchanged_line,
        "image": lambda content: pictures(),
        "text": lambda content: st.sampled_from([text.encode() for text in TEXTS]),
        "words": swapped,
        "letters": inserted,
    }[way]
    return Change("write", draw(broken(content)))


@st.composite
def damaged(draw: Draw, content: bytes) -> bytes:
    """Cut a file, flip bytes of it, or replace it by noise."""
    at = draw(st.integers(0, max(0, len(content) - 1)))
    way = draw(st.sampled_from(("end", "flip", "zero", "noise", "twice", "hole", "begin")))
    noise = draw(st.binary(min_size=1, max_size=20))
    return {
        "end": content[:at],
        "flip": content[:at] + noise[:1] + content[at + 1 :],
        "zero": content[:at] + bytes(len(content) - at),
        "noise": noise,
        "twice": content + content,
        "hole": content[: at // 2] + content[at:],
        "begin": noise + content,
    }[way]


@st.composite
def exchanged(draw: Draw, content: bytes) -> bytes:
    """Exchange or remove one value of a JSON or YAML file; YAML reads JSON."""
    tree = json.loads(content)
    paths = list(paths_of(tree))
    path = draw(st.sampled_from(paths))
    if not path:
        return json.dumps(draw(st.sampled_from(ODD_VALUES))).encode()
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    way = draw(st.sampled_from(("exchange", "exchange", "exchange", "remove", "repeat")))
    if way == "remove":
        del parent[path[-1]]
    elif way == "repeat" and isinstance(parent, list):
        parent.append(parent[path[-1]])
    else:
        parent[path[-1]] = draw(st.sampled_from(ODD_VALUES))
    return json.dumps(tree).encode()


@st.composite
def exchanged_line(draw: Draw, content: bytes) -> bytes:
    """Exchange a value in one line of a JSON Lines file."""
    lines = content.splitlines()
    at = draw(st.integers(0, len(lines) - 1))
    lines[at] = draw(exchanged(lines[at]))
    return b"\n".join(lines) + b"\n"


@st.composite
def swapped(draw: Draw, content: bytes) -> bytes:
    """Replace one word of a text by an odd one."""
    words = content.split(b" ")
    at = draw(st.integers(0, len(words) - 1))
    words[at] = str(draw(st.sampled_from(ODD_VALUES))).encode("utf-8", "surrogatepass")
    return b" ".join(words)


@st.composite
def inserted(draw: Draw, content: bytes) -> bytes:
    """Insert odd letters into a text."""
    at = draw(st.integers(0, len(content)))
    odd = (
        b"\x00",
        b"\xff",
        b"\n",
        b",",
        b'"',
        b"'",
        b":",
        b"{",
        b"\x1b[2J",
        b"\xe2\x80\xa8",
        b"\r",
    )
    return content[:at] + draw(st.sampled_from(odd)) + content[at:]


@st.composite
def pictures(draw: Draw) -> bytes:
    """Draw an image of any pixel mode and format, complete or cut off."""
    mode, format_name = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    size = draw(st.sampled_from(((36, 36), (1, 1), (36, 35), (1, 500), (300, 200))))
    values = np.random.default_rng(draw(st.integers(0, 9))).integers(0, 256, (*size[::-1], 3))
    image = PILImage.fromarray(values.astype(np.uint8))
    buffer = io.BytesIO()
    try:
        gray = image.convert("L")
        image = gray.convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
        image.save(buffer, format=format_name)
    except (OSError, ValueError, KeyError, SystemError):  # the format lacks the mode
        image.convert("RGB").save(buffer, format="PNG")
    content = buffer.getvalue()
    if draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content) - 1))]
    return content


def paths_of(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    """Yield the path of every value of a tree; of long lists only the first ones."""
    yield path
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree[:4])
        for key, value in items:
            yield from paths_of(value, (*path, key))
