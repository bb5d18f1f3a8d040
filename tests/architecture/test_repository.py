"""What a reader of the repository relies on: version, license, links, no trace of a machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import tag2mask

REPOSITORY = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]
FORBIDDEN = ["/work" + "/", "/tmp" + "/venv", "/ro" + "ot/"]
"""Paths of single machines, written in two parts so that this file does not hold them."""


def tracked_files() -> list[Path]:
    """Text files of the repository; those of the working tree where there is no git."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("no git checkout")
    paths = [REPOSITORY / name for name in listed.stdout.decode().split("\0") if name]
    return [
        path for path in paths if path.is_file() and path.suffix not in (".png", ".jpg", ".npz")
    ]


def test_changelog_head_is_the_version():
    head = re.search(r"^## (\S+)", (REPOSITORY / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)
    assert head is not None
    assert head.group(1) == PROJECT["version"] == tag2mask.__version__
    citation = (REPOSITORY / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (\S+)", citation, re.MULTILINE) == [PROJECT["version"]]


def test_license_and_notice_are_whole():
    license = (REPOSITORY / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in license
    assert "END OF TERMS AND CONDITIONS" in license
    notice = (REPOSITORY / "NOTICE").read_text(encoding="utf-8")
    assert re.search(r"MiT.*\n.*NON-COMMERCIAL", notice)
    assert re.search(r"MobileNetV1.*\n\s*Apache-2\.0", notice)


def package(requirement: str) -> str:
    """Name of a required package, as an index spells it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[<>=\[ ]", requirement)[0]).lower()


def locked_packages() -> list[str]:
    """Entries of the lock file: name, version, marker and hashes, each on one line."""
    text = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", "")
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_lock_file_pins_every_package_with_its_hashes():
    marker = r"( ; [\w.='<>! ()]+)?"
    pinned = re.compile(rf"[\w.-]+==[\w.]+{marker}( +--hash=sha256:[0-9a-f]{{64}})+")
    for entry in locked_packages():
        assert pinned.fullmatch(entry), entry


def test_lock_file_covers_the_dependencies_but_torch():
    wanted = [
        *PROJECT["dependencies"],
        *PROJECT["optional-dependencies"]["train"],
        *PYPROJECT["dependency-groups"]["dev"],
        *PYPROJECT["dependency-groups"]["docs"],
    ]
    missing = {package(name) for name in wanted} - {package(entry) for entry in locked_packages()}
    assert missing == {"torch"}


def test_lock_file_leaves_cuda_to_torch():
    for entry in locked_packages():
        assert not re.match(r"torch|triton|nvidia|cuda", entry), entry


def links(page: Path) -> list[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"\]\(([^)\s]+)\)", text)


def anchors(page: Path) -> set[str]:
    """Anchors that GitHub makes from the headings, and explicit ones, `(spec-2-9)=`."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
    return made | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_links_of_the_page_lead_somewhere(page):
    for link in links(page):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_nothing_names_anybodys_machine():
    for path in tracked_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for word in FORBIDDEN:
            assert word not in text, f"{path} names {word}"


@pytest.mark.parametrize(
    "name",
    ["install", "demo", "test", "test-all", "check", "fmt", "docs", "bench", "wheel", "lock"],
)
def test_make_has_its_targets(name):
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    assert re.search(rf"^{name}:", text, re.MULTILINE)
