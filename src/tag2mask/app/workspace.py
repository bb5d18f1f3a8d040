"""Everything behind the page of one run: images, network, corrected masks, downloads."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tag2mask.app.catalog import Catalog, PageImage
from tag2mask.app.corrections import CorrectedMasks, SavedMask
from tag2mask.app.downloads import Download, Downloads, FinishedMask, ImageToExport, export_formats
from tag2mask.app.image_folder import ImageFolder, open_image_folder
from tag2mask.app.limits import Limits
from tag2mask.app.maps import MaskMaker
from tag2mask.app.messages import DownloadRequest, MaskSettings, SaveRequest
from tag2mask.app.ranking import Ranking
from tag2mask.app.refusals import RefusedError
from tag2mask.app.run_lengths import decode_runs, encode_runs
from tag2mask.app.uploads import Uploads
from tag2mask.inference.segmenter import Segmenter
from tag2mask.io.images import image_size
from tag2mask.io.masks import read_mask, save_mask
from tag2mask.io.palette import overlay_palette
from tag2mask.types import Image


@dataclass(frozen=True)
class Workspace:
    """The parts of one page; methods may be called from any thread and answer with plain values."""

    run: str
    maker: MaskMaker
    catalog: Catalog
    ranking: Ranking
    corrections: CorrectedMasks | None
    """None: there is no folder, or its layout has no place for masks."""
    downloads: Downloads
    limits: Limits
    folder: str = ""
    """Name of the folder; empty without one."""
    token: str = field(default_factory=lambda: secrets.token_hex(4))
    """Changes with every start, so that browsers do not show pictures of an earlier page."""

    def describe(self) -> dict[str, Any]:
        """Return what the page needs to know at its start."""
        maker = self.maker
        colors = overlay_palette()[: len(maker.class_names) + 1].tolist()
        masks = None if self.corrections is None else str(self.corrections.folder)
        return {
            "run": Path(self.run).name or self.run,
            "token": self.token,
            "classes": [
                {"name": name, "color": colors[value]}
                for value, name in enumerate(maker.class_names, start=1)
            ],
            "background": maker.background,
            "class_threshold": maker.segmenter.config.class_threshold,
            "refiner": maker.refiner,
            "refiners": list(maker.refiners),
            "formats": [{"name": name, "about": text} for name, text in export_formats().items()],
            "folder": self.folder,
            "saves_to": masks,
            "upload_mib": self.limits.upload_mib,
            "download_images": self.limits.download_images,
        }

    def list_images(self, session: str) -> dict[str, Any]:
        """Return the images of a visitor, most uncertain first, and how far ranking is."""
        return {
            "images": [self.describe_image(image) for image in self.catalog.listed(session)],
            "ranked": self.catalog.ranked,
            "ranking": not self.ranking.is_done,
        }

    def describe_image(self, image: PageImage) -> dict[str, Any]:
        """Return one row of the list of images."""
        if image.upload is not None:
            saved = image.upload.mask_path.is_file()
        else:
            saved = self.corrections is not None and self.corrections.has(image.name)
        return {
            "id": image.identifier,
            "name": image.name,
            "tags": image.tags,
            "uncertainty": self.catalog.uncertainty(image),
            "saved": saved,
            "uploaded": image.upload is not None,
        }

    def upload(self, session: str, file_name: str, content: bytes) -> dict[str, Any]:
        """Keep an image that a visitor dropped."""
        upload = self.catalog.uploads.add(session, file_name, content)
        return self.describe_image(self.catalog.find(session, upload.identifier))

    def picture(self, session: str, identifier: str) -> Image:
        """Return the pixels of an image."""
        return self.maker.read(self.catalog.find(session, identifier).path)

    def make_mask(self, session: str, identifier: str, settings: MaskSettings) -> dict[str, Any]:
        """Make the mask of an image."""
        image = self.catalog.find(session, identifier)
        made = self.maker.make(identifier, image.name, image.path, settings)
        height, width = made.mask.shape
        return {
            "width": width,
            "height": height,
            "runs": encode_runs(made.mask),
            "scores": {name: round(score, 4) for name, score in made.scores.items()},
            "selected": list(made.selected),
            "class_source": made.class_source,
            "uncertainty": round(made.uncertainty, 4),
            "uses_background": made.uses_background,
            "uses_class_threshold": made.uses_class_threshold,
        }

    def saved_mask(self, session: str, identifier: str) -> dict[str, Any]:
        """Return the saved mask of an image, without `runs` if there is none."""
        found = self._saved(self.catalog.find(session, identifier))
        if found is None:
            return {}
        runs = encode_runs(found.mask)
        return {"runs": runs, "version": found.version, "own": found.is_own}

    def save(self, session: str, identifier: str, request: SaveRequest) -> dict[str, Any]:
        """Save a corrected mask: of the folder where training finds it, of an upload beside it."""
        image = self.catalog.find(session, identifier)
        size = image_size(image.path)
        mask = decode_runs(request.runs, size, len(self.maker.class_names))
        if image.upload is not None:
            save_mask(mask, image.upload.mask_path)
            return {
                "version": None,
                "where": "only in this page; download it before you close the page",
            }
        if self.corrections is None:
            raise RefusedError(
                "masks of this layout have no folder of their own; start the page again with "
                "--save DIR"
            )
        version = self.corrections.save(
            image.name, mask, request.replaces, confirmed=request.confirmed
        )
        return {"version": version, "where": str(self.corrections.folder / f"{image.name}.png")}

    def start_download(self, session: str, request: DownloadRequest) -> dict[str, Any]:
        """Begin an export."""
        images = [self.catalog.find(session, one) for one in dict.fromkeys(request.images)]
        jobs = [
            ImageToExport(
                image.name, image.path, partial(self._finish, image, self._settings(image, request))
            )
            for image in images
        ]
        return describe_download(self.downloads.start(session, request.format, jobs))

    def close(self) -> None:
        """End all threads and delete temporary files."""
        self.ranking.close()
        self.maker.close()
        self.downloads.close()
        self.catalog.uploads.close()

    def _saved(self, image: PageImage) -> SavedMask | None:
        """Return the mask that somebody saved for an image; None without."""
        size = image_size(image.path)
        if image.upload is not None:
            path = image.upload.mask_path
            if not path.is_file():
                return None
            return SavedMask(read_mask(path, len(self.maker.class_names), size), "", True)
        return None if self.corrections is None else self.corrections.read(image.name, size)

    def _settings(self, image: PageImage, request: DownloadRequest) -> MaskSettings:
        tags = request.tags.get(image.identifier, image.tags)
        return request.settings.model_copy(update={"tags": tags})

    def _finish(self, image: PageImage, settings: MaskSettings) -> FinishedMask:
        """Return the corrected mask of an image, or make one."""
        saved = self._saved(image)
        if saved is not None:
            return FinishedMask(saved.mask, {}, None)
        made = self.maker.make(image.identifier, image.name, image.path, settings, keep=False)
        return FinishedMask(made.mask, made.scores, made.uncertainty)


def describe_download(download: Download) -> dict[str, Any]:
    """Return how far an export is, as plain values."""
    return {
        "id": download.identifier,
        "total": download.total,
        "done": download.done,
        "ready": download.file is not None,
        "error": download.error,
    }


def open_workspace(
    segmenter: Segmenter,
    run: str,
    data: Path | None = None,
    *,
    labeled: Path | None = None,
    save: Path | None = None,
    limits: Limits | None = None,
) -> Workspace:
    """Open everything behind the page of a run.

    Args:
        segmenter: The run.
        run: Its path or hub id.
        data: Folder of images; None for a page of dropped images only.
        labeled: Masks of these images that `label` wrote, for their uncertainties.
        save: Where corrected masks go; None: `masks` in `data`.
        limits: What visitors may send; None: the usual limits.

    Raises:
        Tag2MaskError: If a folder cannot be used.
    """
    limits = limits or Limits()
    if data is None and (labeled is not None or save is not None):
        raise RefusedError("--masks and --save belong to a folder of images: tag2mask app RUN DATA")
    folder = None if data is None else open_image_folder(segmenter, data, labeled, save)
    images: Sequence[Any] = () if folder is None else folder.images
    corrections = _corrections(folder, segmenter, run)
    maker = MaskMaker(segmenter, limits, None if folder is None else folder.source)
    catalog = Catalog(images, Uploads(limits))
    return Workspace(
        run=run,
        maker=maker,
        catalog=catalog,
        ranking=Ranking(catalog, maker),
        corrections=corrections,
        downloads=Downloads(segmenter.class_names, limits),
        limits=limits,
        folder="" if data is None else data.resolve().name,
    )


def _corrections(
    folder: ImageFolder | None, segmenter: Segmenter, run: str
) -> CorrectedMasks | None:
    if folder is None or folder.masks is None:
        return None
    return CorrectedMasks(folder.masks, segmenter.class_names, run)
