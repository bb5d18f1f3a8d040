"""Files of users are parsed in one place for each format, where size and depth are limited."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tag2mask

ROOT = Path(tag2mask.__file__).parent
PARSERS = {
    "json.load": ("data/coco_annotations.py",),  # drops what it does not need while it parses
    "json.loads": ("io/json_files.py",),
    "yaml.load": ("io/yaml_files.py",),
    "yaml.safe_load": (),
    "ElementTree.parse": (),
    "ElementTree.fromstring": ("io/xml_files.py",),
    "zipfile.ZipFile": ("io/zip_files.py", "formats/cvat.py"),  # CVAT's is written
    "PILImage.open": ("io/heif.py", "formats/cvat.py"),  # a member of an archive, as PNG
    "torch.load": ("models/weights.py",),
    "pickle.load": (),
    "pickle.loads": ("inference/workers.py",),  # from the parent process, never from a file
    "np.load": (),
    "numpy.load": (),
    "eval": (),
    "exec": (),
}
"""Call -> files that may make it."""


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Yield every call with its dotted name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def is_copy(name: str, call: ast.Call) -> bool:
    """Return whether a call copies a value: `json.loads(json.dumps(value))`."""
    inner = call.args[0] if call.args else None
    return (
        name == "json.loads"
        and isinstance(inner, ast.Call)
        and ast.unparse(inner.func) == "json.dumps"
    )


@pytest.mark.parametrize(
    "path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_only_readers_parse_files(path: Path) -> None:
    name_of_file = path.relative_to(ROOT).as_posix()
    for name, call in calls(ast.parse(path.read_text(encoding="utf-8"))):
        if name in PARSERS and not is_copy(name, call):
            assert name_of_file in PARSERS[name], f"{name_of_file}: {name}"


@pytest.mark.parametrize("name", [name for name in PARSERS if PARSERS[name]])
def test_every_named_file_makes_its_call(name: str) -> None:
    for allowed in PARSERS[name]:
        tree = ast.parse((ROOT / allowed).read_text(encoding="utf-8"))
        assert name in dict(calls(tree)), allowed


def test_torch_archives_are_read_without_unpickling() -> None:
    tree = ast.parse((ROOT / PARSERS["torch.load"][0]).read_text(encoding="utf-8"))
    loads = [call for name, call in calls(tree) if name == "torch.load"]
    assert len(loads) == 1
    assert "weights_only=True" in ast.unparse(loads[0])
