"""Who may use the page: a password, requests of the page itself, a cookie per visitor.

A page on 127.0.0.1 is open to everybody on the machine and, through the browser, to every web site
that a person visits. So each request must name a known host (a foreign site can point its own name
at 127.0.0.1), and each request that changes something must carry a header that other sites cannot
send without permission, which the page never gives.
"""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections.abc import Awaitable, Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from tag2mask.errors import Tag2MaskError

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
COOKIE = "tag2mask_session"
OWN_HEADER = b"x-tag2mask"
_SESSION = re.compile(r"[\w-]{22}")
_SAFE_METHODS = ("GET", "HEAD")
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob: data:; "
     b"frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)  # fmt: skip


class Guard:
    """ASGI middleware that lets requests of the page through, and gives each visitor a session."""

    def __init__(self, app: App, *, auth: str | None = None, any_host: bool = False) -> None:
        """Wrap an application.

        Args:
            app: Finds the session in `scope["state"]["session"]`.
            auth: `USER:PASSWORD` that a browser must send; None: no password.
            any_host: Whether the page is served under other names than those of this machine.
        """
        self._app = app
        self._auth = None if auth is None else auth.encode()
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        session = _session_of(headers)
        new = session is None
        session = session or secrets.token_urlsafe(16)
        scope.setdefault("state", {})["session"] = session

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                added = list(_HEADERS)
                if new:
                    cookie = f"{COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/"
                    added.append((b"set-cookie", cookie.encode()))
                message = {**message, "headers": [*message.get("headers", ()), *added]}
            await send(message)

        await self._app(scope, receive, guarded)

    def _refusal(self, method: str, headers: dict[bytes, bytes]) -> tuple[int, str] | None:
        """Return status and reason why a request is refused; None if it may pass."""
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if not self._any_host and re.sub(r":\d+$", "", host) not in LOCAL_HOSTS:
            return 400, f"this page answers only as {LOCAL_HOSTS[0]} or {LOCAL_HOSTS[1]}"
        if self._auth is not None and not self._is_authorized(headers):
            return 401, "this page needs a user and a password"
        if method not in _SAFE_METHODS and OWN_HEADER not in headers:
            return 403, "only the page itself may change something"
        return None

    def _is_authorized(self, headers: dict[bytes, bytes]) -> bool:
        kind, _, encoded = headers.get(b"authorization", b"").partition(b" ")
        try:
            given = base64.b64decode(encoded.strip(), validate=True)
        except binascii.Error:
            return False
        return kind.lower() == b"basic" and secrets.compare_digest(given, self._auth or b"")


def check_auth(auth: str | None) -> str | None:
    """Return the `USER:PASSWORD` of the command line.

    Raises:
        Tag2MaskError: If a part is missing.
    """
    if auth is None:
        return None
    user, colon, password = auth.partition(":")
    if not (user and colon and password):
        raise Tag2MaskError("--auth takes USER:PASSWORD, such as --auth anna:secret")
    return auth


def _session_of(headers: dict[bytes, bytes]) -> str | None:
    """Return the visitor's session from the cookie; None if it is missing or not ours."""
    try:
        cookies = SimpleCookie(headers.get(b"cookie", b"").decode("latin-1"))
    except CookieError:
        return None
    found = cookies.get(COOKIE)
    return found.value if found is not None and _SESSION.fullmatch(found.value) else None


async def _refuse(send: Send, status: int, reason: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *_HEADERS]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="tag2mask", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": reason.encode()})
