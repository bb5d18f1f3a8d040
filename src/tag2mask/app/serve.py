"""Serve the page until the person ends it."""

from __future__ import annotations

import socket

from tag2mask.app.workspace import Workspace
from tag2mask.errors import MissingExtraError, RunError

EXTRA = "app"
_LOCAL = ("127.0.0.1", "localhost", "::1")


def is_local(host: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    return host in _LOCAL


def require_extra() -> None:
    """Check that the page's server is installed.

    Raises:
        MissingExtraError: If it is not.
    """
    try:
        import starlette
        import uvicorn
    except ImportError as error:
        raise MissingExtraError(EXTRA) from error
    del starlette, uvicorn


def open_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one.

    Raises:
        RunError: If the port is taken or the address does not belong to this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen()
    except OSError as error:
        opened.close()
        raise RunError(
            f"port {port} of {host} cannot be used ({error.strerror or error}); take another one: "
            "--port 0 finds a free one"
        ) from error
    return opened


def serve(
    workspace: Workspace,
    opened: socket.socket,
    *,
    auth: str | None = None,
    any_host: bool = False,
) -> None:
    """Answer requests until Ctrl-C.

    Args:
        workspace: Closed at the end.
        opened: From `open_socket`.
        auth: `USER:PASSWORD`; None: no password.
        any_host: Whether other names than those of this machine are accepted.
    """
    import uvicorn

    from tag2mask.app.routes import build_app

    app = build_app(workspace, auth=auth, any_host=any_host)
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=5,
        limit_concurrency=200,
    )
    uvicorn.Server(config).run(sockets=[opened])
