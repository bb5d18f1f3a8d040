"""What visitors of the page may send, and how much memory the page keeps."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1_048_576


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one page."""

    upload_mib: int = 25
    """Largest image file."""
    image_mpx: int = 25
    """Largest image in millions of pixels; also of images of the folder."""
    uploads: int = 200
    """Uploaded images of all visitors that are kept at the same time."""
    idle_s: float = 3_600.0
    """Time after which an upload that nobody used makes room for new ones."""
    body_mib: int = 16
    """Largest request other than an upload: the mask of a large image."""
    cache_mib: int = 256
    """Memory for the maps of images; sliders of cached images do not run the network."""
    download_images: int = 500
    """Largest number of images in one download."""
    downloads: int = 8
    """Finished downloads that are kept; older ones are deleted."""

    @property
    def upload_bytes(self) -> int:
        """Largest image file in bytes."""
        return self.upload_mib * MIB

    @property
    def body_bytes(self) -> int:
        """Largest other request in bytes."""
        return self.body_mib * MIB

    @property
    def image_px(self) -> int:
        """Largest image in pixels."""
        return self.image_mpx * 1_000_000
