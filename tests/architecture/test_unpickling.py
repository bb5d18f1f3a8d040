"""Files are read without running code: torch.load in one place, no other unpickling of files."""

import ast
from pathlib import Path

import pytest
import yaml

import tag2mask
from tag2mask.io import yaml_files

ROOT = Path(tag2mask.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LOADER = "models/weights.py"
"""The one file that reads torch archives."""
YAML_READER = ("io/yaml_files.py", "yaml.load(text, _Loader)")
"""The one file that reads YAML, and its call; the loader is a safe one."""
OWN_BYTES = "inference/workers.py"
"""Unpickles what the parent process has sent, no file."""
FORBIDDEN_MODULES = {"dill", "joblib", "cloudpickle", "marshal", "shelve", "_pickle", "runpy"}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    *("pickle.load", "pickle.Unpickler", "torch.jit.load", "torch.package.PackageImporter"),
    *("torch.hub.load", "torch.utils.cpp_extension.load", "pandas.read_pickle", "pd.read_pickle"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load"),
}


def problems(source: str, inside: str) -> list[str]:
    """Ways to run code from a file in one source file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = {module, *(f"{module}.{one.name}".strip(".") for one in node.names)}
            found += [
                name
                for name in names
                if name.split(".")[0] in FORBIDDEN_MODULES or name in FORBIDDEN_METHODS
                or name in ("torch.load", "pickle.loads")
            ]  # fmt: skip
        if isinstance(node, ast.Call):
            found += call_problems(node, inside)
    return found


def call_problems(node: ast.Call, inside: str) -> list[str]:
    called = ast.unparse(node.func)
    words = {one.arg: ast.unparse(one.value) for one in node.keywords}
    if called == "yaml.load" and (inside, ast.unparse(node)) == YAML_READER:
        return []
    if called in FORBIDDEN_CALLS or called in FORBIDDEN_METHODS:
        return [called]
    if called == "torch.load" and (inside != LOADER or words.get("weights_only") != "True"):
        return [called]
    if called == "pickle.loads" and inside != OWN_BYTES:
        return [called]
    if called.endswith("from_pretrained") and words.get("weights_only", "True") != "True":
        return [called]
    wanted = {"allow_pickle": "False", "trust_remote_code": "False"}
    return [f"{called}({key})" for key, value in wanted.items() if words.get(key, value) != value]


def test_the_loader_of_yaml_is_a_safe_one() -> None:
    assert issubclass(yaml_files._Loader, yaml.SafeLoader)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_runs_code_from_a_file(path: Path) -> None:
    inside = path.relative_to(ROOT).as_posix()
    assert problems(path.read_text(encoding="utf-8"), inside) == []


def test_torch_archives_are_read_in_one_place() -> None:
    loaders = [
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if "torch.load(" in path.read_text(encoding="utf-8")
    ]
    assert loaders == [LOADER]


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import load",
        "import pickle\npickle.load(open('x', 'rb'))",
        "import pickle\npickle.loads(b'')",
        "from pickle import loads",
        "import dill",
        "from joblib import load",
        "import numpy as np\nnp.load('x', allow_pickle=True)",
        "import yaml\nyaml.load(text, Loader=yaml.Loader)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
        "AutoModel.from_pretrained('x', weights_only=False)",
        "eval('1')",
    ],
)
def test_unpickling_is_caught_in_every_form(source: str) -> None:
    assert problems(source, "data/base.py")


def test_the_loader_needs_its_safe_mode() -> None:
    assert problems("torch.load(path)", LOADER) == ["torch.load"]
    assert problems("torch.load(path, weights_only=False)", LOADER) == ["torch.load"]
    assert problems("torch.load(path, map_location='cpu', weights_only=True)", LOADER) == []
