"""GeoTIFF: a palette TIFF mask per image that keeps its georeference, for QGIS and ArcGIS."""

from __future__ import annotations

from pathlib import Path

from PIL import Image as PILImage
from PIL import TiffImagePlugin

from tag2mask.formats.base import Format, MaskCollection
from tag2mask.io.geo import TAG_TYPES
from tag2mask.io.mask_folder import describe_classes, write_classes
from tag2mask.io.palette import voc_palette
from tag2mask.types import IGNORE

NODATA = 42113
"""Tag in which GDAL looks for the value of pixels without data."""
ASCII = 2


class GeoTIFF(Format):
    """A folder with NAME.tif for each image and `classes.json`; 255 is "no data".

    The tags of the georeference are copied as they are; a mask of an image without them has none.
    """

    def write(self, masks: MaskCollection, out: Path) -> None:
        """Write a file per image, compressed without loss."""
        source = masks.class_source or "corrected"
        write_classes(out, describe_classes(masks.class_names, source, masks.settings))
        for image in masks:
            path = out / f"{image.name}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tags = TiffImagePlugin.ImageFileDirectory_v2()
            on_map = image.georeference()
            for tag, value in ({} if on_map is None else on_map.tags).items():
                tags[tag] = value
                tags.tagtype[tag] = TAG_TYPES[tag]
            tags[NODATA], tags.tagtype[NODATA] = str(IGNORE), ASCII
            picture = PILImage.fromarray(image.load())
            picture.putpalette(voc_palette().tobytes())
            picture.save(path, format="TIFF", compression="tiff_deflate", tiffinfo=tags)
