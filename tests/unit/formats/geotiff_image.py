"""GeoTIFF images whose place is known, and masks of them."""

import numpy as np
from PIL import Image as PILImage
from PIL import TiffImagePlugin

from tag2mask.formats.base import MaskCollection, MaskedImage
from tag2mask.io.geo import DIRECTORY, MATRIX, SCALE, TIEPOINT

DOUBLE, SHORT = 12, 3
UTM_33N = 32633


def save_geotiff(path, array, *, epsg=UTM_33N, raster_type=1, matrix=None):
    """Write a GeoTIFF of 0.5 m pixels whose upper left corner is at x 400,000 and y 5,000,000."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    if matrix is None:
        info[SCALE], info.tagtype[SCALE] = (0.5, 0.5, 0.0), DOUBLE
        info[TIEPOINT] = (0.0, 0.0, 0.0, 400_000.0, 5_000_000.0, 0.0)
        info.tagtype[TIEPOINT] = DOUBLE
    else:
        info[MATRIX], info.tagtype[MATRIX] = matrix, DOUBLE
    info[DIRECTORY] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, raster_type, 3072, 0, 1, epsg)
    info.tagtype[DIRECTORY] = SHORT
    PILImage.fromarray(array).save(path, tiffinfo=info)
    return path


def one_mask(mask, image):
    """Return the collection of one mask of the class `weeds`."""
    values = np.asarray(mask, dtype=np.uint8)
    height, width = values.shape
    one = MaskedImage(image.stem, image.name, width, height, lambda: values, image_path=image)
    return MaskCollection(("weeds",), ((0, 0, 0), (128, 0, 0)), (one,))
