"""Two machines with one network card each, `node1` and `node2`, as namespaces of this machine.

The namespaces live inside a private user, mount and network namespace: nothing of this machine
changes, and nothing remains.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

NAMES = ("node1", "node2")
PRIVATE = ("unshare", "--map-root-user", "--net", "--mount", "--kill-child", "--fork")
SETUP = """
set -e
mount -t tmpfs tmpfs /run
printf '127.0.0.1 localhost\\n10.77.0.1 node1\\n10.77.0.2 node2\\n' > /run/hosts
mount --bind /run/hosts /etc/hosts
ip netns add node1
ip netns add node2
ip -n node1 link add card0 type veth peer name card0 netns node2
ip -n node1 address add 10.77.0.1/24 dev card0
ip -n node2 address add 10.77.0.2/24 dev card0
for name in node1 node2; do ip -n $name link set card0 up; ip -n $name link set lo up; done
"""


def require_namespaces() -> None:
    """Skip a test where namespaces are not allowed; with CI=true a missing program is an error."""
    missing = [name for name in ("unshare", "ip", "hostname") if shutil.which(name) is None]
    if missing and os.environ.get("CI") == "true":
        pytest.fail(f"{', '.join(missing)}: not installed (util-linux, iproute2, hostname)")
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed (util-linux, iproute2, hostname)")
    tried = subprocess.run(
        [*PRIVATE, "bash", "-c", SETUP], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        pytest.skip(f"this system allows no network namespaces: {tried.stderr.strip()}")


def run_on_both(
    command: str, folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run one shell command on both machines; the exit code is that of the first that fails."""
    starts = "\n".join(
        f"ip netns exec {name} unshare --uts bash -c 'hostname {name}; {command}' "
        f"> {folder}/{name}.log 2>&1 & {name}=$!"
        for name in NAMES
    )
    script = f"{SETUP}\nset +e\n{starts}\nwait $node1; first=$?\nwait $node2; second=$?\n"
    script += f"cat {folder}/node1.log {folder}/node2.log\nexit $((first ? first : second))\n"
    return subprocess.run(
        [*PRIVATE, "bash", "-c", script],
        env={**os.environ, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
