"""The addresses of the page: one static page, JSON, and pictures.

The page is plain HTML, CSS and JavaScript over Starlette, not gradio: the brush needs a canvas of
its own, sliders must answer from cached maps, and a mask must arrive pixel by pixel. None of
gradio's components would be left on the page, but it would hold back Pillow and add 100 MB.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image as PILImage
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from tag2mask.app.guard import App, Guard
from tag2mask.app.messages import DownloadRequest, MaskSettings, SaveRequest, parse
from tag2mask.app.refusals import NotFoundError, RefusedError, TooLargeError
from tag2mask.app.workspace import Workspace, describe_download
from tag2mask.errors import Tag2MaskError
from tag2mask.types import Image

STATIC = Path(__file__).parent / "static"
THUMBNAIL_PX = 160
_JPEG_QUALITY = 90
_COMPRESSED_FROM = 1_000
_PICTURE_THREADS = 2
_KEEP_PICTURES = {"cache-control": "private, max-age=3600"}
_NO_STORE = {"cache-control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


def build_app(workspace: Workspace, *, auth: str | None = None, any_host: bool = False) -> App:
    """Return the ASGI application of the page.

    Args:
        workspace: Closed when the application stops.
        auth: `USER:PASSWORD`; None: no password.
        any_host: See `Guard`.
    """
    routes = Routes(workspace)
    paths: list[tuple[str, str, Handler]] = [
        ("GET", "/", routes.page),
        ("GET", "/api/page", routes.describe),
        ("GET", "/api/images", routes.list_images),
        ("POST", "/api/images", routes.upload),
        ("DELETE", "/api/images/{image}", routes.remove),
        ("GET", "/api/images/{image}/picture", routes.picture),
        ("GET", "/api/images/{image}/thumbnail", routes.thumbnail),
        ("POST", "/api/images/{image}/mask", routes.make_mask),
        ("GET", "/api/images/{image}/saved", routes.saved_mask),
        ("PUT", "/api/images/{image}/saved", routes.save),
        ("POST", "/api/downloads", routes.start_download),
        ("GET", "/api/downloads/{download}", routes.download_progress),
        ("GET", "/api/downloads/{download}/file", routes.download_file),
    ]

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        workspace.ranking.start()
        yield
        await run_in_threadpool(routes.close)

    app = Starlette(
        routes=[
            *(
                Route(path, _answering(handler), methods=[method])
                for method, path, handler in paths
            ),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
    )
    compressed = GZipMiddleware(app, minimum_size=_COMPRESSED_FROM, compresslevel=5)
    return Guard(compressed, auth=auth, any_host=any_host)


class Routes:
    """One method per address; the work is done by the workspace, in threads."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._pictures = ThreadPoolExecutor(_PICTURE_THREADS, "pictures")

    def close(self) -> None:
        """Close the workspace and end the threads."""
        self._pictures.shutdown(cancel_futures=True)
        self._workspace.close()

    async def page(self, request: Request) -> Response:
        """Return the page itself."""
        return FileResponse(STATIC / "index.html", headers=_NO_STORE)

    async def describe(self, request: Request) -> Response:
        """Return classes, settings and formats."""
        return JSONResponse(self._workspace.describe(), headers=_NO_STORE)

    async def list_images(self, request: Request) -> Response:
        """Return the images of the visitor."""
        listed = await run_in_threadpool(self._workspace.list_images, _session(request))
        return JSONResponse(listed, headers=_NO_STORE)

    async def upload(self, request: Request) -> Response:
        """Keep the image that is the body of the request; `?name=` is its file name."""
        limits, name = self._workspace.limits, request.query_params.get("name", "image")[-200:]
        content = await _read_body(
            request, limits.upload_bytes, f"{name}: larger than {limits.upload_mib} MiB"
        )
        add = partial(self._workspace.upload, _session(request), name, content)
        return JSONResponse(await self._in_picture_thread(add), status_code=201)

    async def remove(self, request: Request) -> Response:
        """Forget an uploaded image."""
        uploads = self._workspace.catalog.uploads
        await run_in_threadpool(uploads.remove, _session(request), request.path_params["image"])
        return Response(status_code=204)

    async def picture(self, request: Request) -> Response:
        """Return an image as the browser can show it, upright."""
        return await self._jpeg(request, None)

    async def thumbnail(self, request: Request) -> Response:
        """Return a small version of an image."""
        return await self._jpeg(request, THUMBNAIL_PX)

    async def make_mask(self, request: Request) -> Response:
        """Make the mask of an image with the settings in the body."""
        settings = parse(MaskSettings, await self._read_body(request))
        image = request.path_params["image"]
        made = await run_in_threadpool(
            self._workspace.make_mask, _session(request), image, settings
        )
        return JSONResponse(made)

    async def saved_mask(self, request: Request) -> Response:
        """Return the saved mask of an image."""
        image = request.path_params["image"]
        saved = await run_in_threadpool(self._workspace.saved_mask, _session(request), image)
        return JSONResponse(saved, headers=_NO_STORE)

    async def save(self, request: Request) -> Response:
        """Save the corrected mask in the body."""
        message = parse(SaveRequest, await self._read_body(request))
        image = request.path_params["image"]
        saved = await run_in_threadpool(self._workspace.save, _session(request), image, message)
        return JSONResponse(saved)

    async def start_download(self, request: Request) -> Response:
        """Begin an export."""
        message = parse(DownloadRequest, await self._read_body(request))
        started = await run_in_threadpool(
            self._workspace.start_download, _session(request), message
        )
        return JSONResponse(started, status_code=202)

    async def download_progress(self, request: Request) -> Response:
        """Return how far an export is."""
        found = self._workspace.downloads.find(_session(request), request.path_params["download"])
        return JSONResponse(describe_download(found), headers=_NO_STORE)

    async def download_file(self, request: Request) -> Response:
        """Return the file of a finished export."""
        found = self._workspace.downloads.find(_session(request), request.path_params["download"])
        if found.file is None:
            raise NotFoundError("this download is not ready")
        return FileResponse(found.file, filename=found.file.name, headers=_NO_STORE)

    async def _jpeg(self, request: Request, side: int | None) -> Response:
        read = partial(self._workspace.picture, _session(request), request.path_params["image"])
        content = await self._in_picture_thread(lambda: encode_jpeg(read(), side))
        return Response(content, media_type="image/jpeg", headers=_KEEP_PICTURES)

    async def _read_body(self, request: Request) -> bytes:
        return await _read_body(
            request, self._workspace.limits.body_bytes, "the request is too large"
        )

    async def _in_picture_thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pictures, work)


def encode_jpeg(image: Image, side: int | None) -> bytes:
    """Return an (H, W, 3) image as JPEG; with `side`, shrunk to this long side in pixels."""
    picture, stream = PILImage.fromarray(image), io.BytesIO()
    if side is not None:
        picture.thumbnail((side, side))
    picture.save(stream, "JPEG", quality=_JPEG_QUALITY)
    return stream.getvalue()


def _answering(handler: Handler) -> Handler:
    """Turn a person's mistakes into JSON with one line, as the command line does."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except Tag2MaskError as error:
            status = error.status if isinstance(error, RefusedError) else 400
            return JSONResponse({"error": str(error)}, status_code=status)

    return answer


async def _read_body(request: Request, most_bytes: int, refusal: str) -> bytes:
    """Read the body of a request, and stop where it passes the limit."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > most_bytes:
            raise TooLargeError(refusal)
    return bytes(content)


def _session(request: Request) -> str:
    session: str = request.state.session
    return session
