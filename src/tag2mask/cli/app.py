"""Open a web page: inspect masks, move thresholds, correct with a brush."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tag2mask.cli.inference import KEY_SECTIONS, RunArgument, WeightsOption, print_network
from tag2mask.errors import Tag2MaskError

if TYPE_CHECKING:  # imports torch, which --help need not load
    from tag2mask.app.workspace import Workspace

__all__ = ["EXAMPLES", "KEY_SECTIONS", "run"]
EXAMPLES = """\
  tag2mask app RUN
  tag2mask app RUN DATA
  tag2mask app RUN DATA --masks MASKS
  tag2mask app RUN DATA --host 0.0.0.0 --auth anna:secret"""

DataArgument = Annotated[
    Path | None,
    typer.Argument(
        metavar="DATA",
        help="Folder of images, with or without tags; corrected masks go to 'masks' in it, where "
        "training finds them. Default: only images that you drop on the page.",
    ),
]
MasksOption = Annotated[
    Path | None,
    typer.Option(
        "--masks",
        metavar="MASKS",
        help="Masks of DATA that `label` or `predict` wrote: the page reads from them which images "
        "are the most uncertain. Default: the page finds out while you look.",
    ),
]
SaveOption = Annotated[
    Path | None,
    typer.Option(
        "--save", metavar="DIR", help="Folder for corrected masks; default: 'masks' in DATA."
    ),
]
PortOption = Annotated[
    int, typer.Option("--port", metavar="N", min=0, max=65_535, help="Port; 0 takes a free one.")
]
HostOption = Annotated[
    str,
    typer.Option(
        "--host",
        metavar="ADDRESS",
        help="Address to listen on; another than that of this machine needs --auth.",
    ),
]
AuthOption = Annotated[
    str | None,
    typer.Option(
        "--auth",
        metavar="USER:PASSWORD",
        envvar="TAG2MASK_AUTH",
        help="User and password that a browser must give.",
    ),
]
OpenOption = Annotated[
    bool, typer.Option("--open", help="Open the page in the browser of this machine.")
]


def run(
    ctx: typer.Context,
    folder: RunArgument,
    data: DataArgument = None,
    masks: MasksOption = None,
    save: SaveOption = None,
    port: PortOption = 7860,
    host: HostOption = "127.0.0.1",
    auth: AuthOption = None,
    open_browser: OpenOption = False,
    weights: WeightsOption = "best",
) -> None:
    """Open a web page: inspect masks, move thresholds, correct with a brush.

    Ctrl-C ends the page. Nothing leaves this machine. KEY=VALUE words change the run's inference
    settings, as in 'label'.
    """
    from tag2mask.app.guard import check_auth
    from tag2mask.app.serve import is_local, open_socket, require_extra, serve

    require_extra()
    check_auth(auth)
    if auth is None and not is_local(host):
        raise Tag2MaskError(
            f"--host {host} lets other machines in; add --auth USER:PASSWORD, or keep 127.0.0.1 "
            "and reach it through ssh -L"
        )
    with open_socket(host, port) as opened:  # before seconds pass with the network
        print_network(folder)

        from tag2mask.api import open_run
        from tag2mask.app.workspace import open_workspace

        segmenter = open_run(folder, ctx.obj.overrides, weights, "auto")
        workspace = open_workspace(segmenter, folder, data, labeled=masks, save=save)
        name = f"[{host}]" if ":" in host else host
        print_address(f"http://{name}:{opened.getsockname()[1]}", workspace, data)
        if open_browser:
            webbrowser.open(f"http://{name}:{opened.getsockname()[1]}")
        serve(workspace, opened, auth=auth, any_host=not is_local(host))


def print_address(address: str, workspace: Workspace, data: Path | None) -> None:
    """Print where the page is and where corrected masks go."""
    images = f"{len(workspace.catalog):,} images of {data}" if data else "drop images there"
    print(f"page:    {address} ({images}; Ctrl-C ends it)")
    if workspace.corrections is not None:
        print(f"saves:   corrected masks go to {workspace.corrections.folder}")
    sys.stdout.flush()
