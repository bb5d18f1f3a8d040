"""What a run folder or a folder of masks says, without times."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

TIMES = {"seconds", "estimate", "images_per_s", "peak_memory_mib", "command", "event", "machine"}


def digest(folder: Path) -> dict[str, str]:
    """Return one short text per file of a folder; those of logs cover losses and scores only."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(("tensorboard/", "report")) and (
            "/tensorboard/" not in name
        ):  # fmt: skip
            found[name] = hashlib.sha256(_content(path)).hexdigest()[:16]
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> list[str]:
    """Name the files that are missing, left over or different."""
    return [
        f"{name}: {found.get(name, 'missing')}, expected {expected.get(name, 'no such file')}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def _content(path: Path) -> bytes:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            return b"".join(name.encode() + file.get_tensor(name).tobytes() for name in file.keys())  # noqa: SIM118 not a dict
    if path.name == "log.jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return _plain([row for row in rows if "losses" in row or "score" in row])
    if path.name == "scores.jsonl":
        rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        return _plain(sorted(rows, key=lambda row: row["name"]))
    if path.suffix == ".json":
        return _plain(json.loads(path.read_text("utf-8")))
    return path.read_bytes()


def _plain(value: Any) -> bytes:
    return json.dumps(_without(value), sort_keys=True).encode()


def _without(value: Any) -> Any:
    """Drop what differs between equal runs, at any depth."""
    if isinstance(value, dict):
        return {k: _without(v) for k, v in value.items() if k not in TIMES}
    return [_without(one) for one in value] if isinstance(value, list) else value
