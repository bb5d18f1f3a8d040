"""A page of a small network over four painted images in a tagged folder."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tag2mask.app.limits import Limits
from tag2mask.app.workspace import Workspace, open_workspace
from tag2mask.inference.segmenter import Segmenter


@pytest.fixture
def data(image_folder: Callable[[], Path]) -> Path:
    """Folder with `images` and `tags.csv`; three of the four images have a tag."""
    root = image_folder().parent
    rows = "image,tags\nlane1/a.png,cat\nlane1/b.png,cow\nlane2/a.png,dog\nnone.png,\n"
    (root / "tags.csv").write_text(rows, encoding="utf-8")
    return root


@pytest.fixture
def workspace(segmenter: Segmenter, data: Path) -> Iterator[Workspace]:
    """The page of the folder; nothing is ranked until a test starts it."""
    opened = open_workspace(segmenter, "runs/pets", data, limits=Limits(image_mpx=1))
    yield opened
    opened.close()
