"""Exports of masks for download, made in the background in any format of the folder `formats`."""

from __future__ import annotations

import ast
import logging
import secrets
import shutil
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tag2mask import plugins
from tag2mask.app.limits import Limits
from tag2mask.app.refusals import NotFoundError, RefusedError, TooLargeError
from tag2mask.errors import Tag2MaskError
from tag2mask.formats.base import Format, MaskCollection, MaskedImage
from tag2mask.formats.exchange import export_masks
from tag2mask.io.palette import voc_palette
from tag2mask.types import Mask


class FinishedMask(NamedTuple):
    """The mask of one image, ready to export."""

    mask: Mask
    scores: dict[str, float]
    """Class probabilities; empty for a mask that a person corrected."""
    uncertainty: float | None


class ImageToExport(NamedTuple):
    """One image of a download."""

    name: str
    path: Path
    finish: Callable[[], FinishedMask]
    """Returns its mask; may run the network."""


@dataclass(slots=True)
class Download:
    """One export."""

    identifier: str
    session: str
    total: int
    """Number of images."""
    done: int = 0
    """Images whose mask is ready."""
    file: Path | None = None
    """The finished file."""
    error: str | None = None
    """Why there will be no file."""


class Downloads:
    """The exports of all visitors; its methods may be called from any thread."""

    def __init__(self, class_names: Sequence[str], limits: Limits) -> None:
        self._class_names = tuple(class_names)
        self._limits = limits
        self._folder = tempfile.TemporaryDirectory(prefix="tag2mask-download-")
        self._kept: OrderedDict[str, Download] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, "download")

    def start(self, session: str, format_name: str, images: Sequence[ImageToExport]) -> Download:
        """Begin an export; returns at once.

        Raises:
            TooLargeError: If there are too many images.
            RefusedError: If there is none, or no such format.
        """
        if format_name not in export_formats():
            known = ", ".join(export_formats())
            raise RefusedError(f"unknown format '{format_name}'. Known: {known}")
        if not images:
            raise RefusedError("no image to download; drop one on the page")
        if len(images) > self._limits.download_images:
            raise TooLargeError(
                f"{len(images):,} images are too many for one download (at most "
                f"{self._limits.download_images}); use: tag2mask label RUN DATA --out MASKS, then "
                "tag2mask export"
            )
        download = Download(secrets.token_hex(8), session, len(images))
        with self._lock:
            self._kept[download.identifier] = download
            while len(self._kept) > self._limits.downloads:
                dropped, _ = self._kept.popitem(last=False)
                shutil.rmtree(Path(self._folder.name, dropped), ignore_errors=True)
        self._pool.submit(self._run, download, format_name, list(images))
        return download

    def find(self, session: str, identifier: str) -> Download:
        """Return an export of a visitor.

        Raises:
            NotFoundError: If there is none; old ones are deleted.
        """
        with self._lock:
            download = self._kept.get(identifier)
        if download is None or download.session != session:
            raise NotFoundError("this download is no longer on the page; start it again")
        return download

    def close(self) -> None:
        """Stop, and delete all exports."""
        with self._lock:
            self._kept.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._folder.cleanup()

    def _run(self, download: Download, format_name: str, images: Sequence[ImageToExport]) -> None:
        folder = Path(self._folder.name, download.identifier)
        try:
            folder.mkdir()
            masked = []
            for image in images:
                if download.identifier not in self._kept:
                    return
                masked.append(_stored(image, folder / "masks" / f"{download.done}.npy"))
                download.done += 1
            colors = voc_palette()[: len(self._class_names) + 1]
            collection = MaskCollection(
                class_names=self._class_names,
                palette=tuple((int(r), int(g), int(b)) for r, g, b in colors),
                images=tuple(sorted(masked, key=lambda image: image.name)),
            )
            download.file = _exported(collection, format_name, folder)
        except (Tag2MaskError, OSError) as error:
            download.error = str(error)
        except Exception:
            logging.getLogger(__name__).exception("the export failed")
            download.error = "the export failed; the terminal of the page shows why"
        finally:
            shutil.rmtree(folder / "masks", ignore_errors=True)


def export_formats() -> dict[str, str]:
    """Map the name of each format for masks to the first line of its docstring."""
    bundled = plugins.plugins_in("formats")
    return {
        name: _summary(bundled[name].path) if name in bundled else name
        for name in plugins.available("formats")
    }


def _summary(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0]


def _stored(image: ImageToExport, path: Path) -> MaskedImage:
    """Make the mask of an image, and keep it on disk until the export reads it."""
    finished = image.finish()
    path.parent.mkdir(exist_ok=True)
    np.save(path, finished.mask)
    file_name = Path(*Path(image.name).parts[:-1], Path(image.name).name + image.path.suffix)
    height, width = finished.mask.shape
    return MaskedImage(
        name=image.name,
        file_name=file_name.as_posix(),
        width=width,
        height=height,
        load=partial(np.load, path),
        image_path=image.path,
        scores=finished.scores,
        uncertainty=finished.uncertainty,
    )


def _exported(masks: MaskCollection, format_name: str, folder: Path) -> Path:
    """Write one file for the browser; formats that write a folder are packed."""
    kind: type[Format] = plugins.load("formats", format_name)
    out = folder / f"masks_{format_name}{kind.suffix}"
    export_masks(masks, format_name, out)
    if out.is_file():
        return out
    packed = Path(shutil.make_archive(str(out), "zip", out))
    shutil.rmtree(out)
    return packed
