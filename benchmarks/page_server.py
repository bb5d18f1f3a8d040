"""Start `tag2mask app` as a process and talk to it as a browser does."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

from tag2mask.errors import RunError


class Visitor:
    """One browser: a connection and the cookie of its session."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
        self._headers = {"X-Tag2mask": "1"}

    def ask(self, method: str, path: str, content: bytes | dict[str, Any] | None = None) -> Any:
        """Send one request; return its JSON, or bytes.

        Raises:
            RunError: If the page refuses it.
        """
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        self._connection.request(method, path, body, self._headers)
        answer = self._connection.getresponse()
        read = answer.read()
        if answer.status >= 400:
            raise RunError(f"{method} {path}: {answer.status} {read[:200]!r}")
        for cookie in answer.headers.get_all("set-cookie", []):
            self._headers["Cookie"] = cookie.split(";")[0]
        is_json = answer.headers.get_content_type() == "application/json"
        return json.loads(read) if is_json else read

    def upload(self, path: Path) -> str:
        """Drop an image on the page; return its identifier."""
        sent = self.ask("POST", f"/api/images?name={quote(path.name)}", path.read_bytes())
        return str(sent["id"])

    def mask(self, image: str, **settings: Any) -> dict[str, Any]:
        """Ask for the mask of an image."""
        made: dict[str, Any] = self.ask("POST", f"/api/images/{image}/mask", settings)
        return made


class PageServer:
    """The page of a run; a context manager that ends it."""

    def __init__(self, words: Sequence[str]) -> None:
        line = [sys.executable, "-m", "tag2mask", "app", *words, "--port", "0"]
        self._process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
        self.address = ""
        assert self._process.stdout is not None
        for printed in self._process.stdout:
            if match := re.match(r"page: +(\S+)", printed):
                self.address = match[1]
                break
        if not self.address:
            raise RunError("the page did not start")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=120)

    def memory_mib(self) -> float:
        """Resident memory of the page's process in MiB (Linux)."""
        status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="utf-8")
        return int(status.split("VmRSS:")[1].split()[0]) / 1024
