"""Find the most uncertain images of the folder in the background."""

from __future__ import annotations

import threading

from tag2mask.app.catalog import Catalog, PageImage
from tag2mask.app.maps import MaskMaker
from tag2mask.app.messages import MaskSettings
from tag2mask.errors import Tag2MaskError

PAUSE_S = 0.05
"""Between two images; requests of visitors go first."""


class Ranking:
    """A thread that makes the mask of every image once to learn its uncertainty."""

    def __init__(self, catalog: Catalog, maker: MaskMaker) -> None:
        self._catalog, self._maker = catalog, maker
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ranking", daemon=True)
        self.unreadable = 0
        """Images that could not be ranked."""

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the present image."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    @property
    def is_done(self) -> bool:
        """Whether every image has been tried."""
        return self._catalog.ranked + self.unreadable >= len(self._catalog)

    def _run(self) -> None:
        for image in list(self._catalog.unranked()):
            if self._stop.wait(PAUSE_S):
                return
            try:
                self._catalog.set_uncertainty(image, self._uncertainty(image))
            except Tag2MaskError:  # the visitor who opens it reads why
                self.unreadable += 1
            except RuntimeError:  # the page is closing
                return

    def _uncertainty(self, image: PageImage) -> float:
        settings = MaskSettings(tags=image.tags)
        made = self._maker.make(image.identifier, image.name, image.path, settings, keep=False)
        return made.uncertainty
