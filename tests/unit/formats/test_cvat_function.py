from pathlib import Path

import pytest

from tag2mask.errors import RunError
from tag2mask.formats.cvat_function import create


def test_folder_without_weights_is_one_line(tmp_path: Path) -> None:
    """tests/formats calls the function as CVAT's command line does."""
    with pytest.raises(RunError, match="contains no weights"):
        create(str(tmp_path))
