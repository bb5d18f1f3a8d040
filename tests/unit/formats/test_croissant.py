import csv
import hashlib
import json

import pytest

from tag2mask.errors import DataError
from tag2mask.formats.croissant import Croissant


def test_metadata_describe_the_files_beside_them(masks, tmp_path):
    out = tmp_path / "out"
    Croissant().write(masks, out)
    metadata = json.loads((out / "croissant.json").read_text())
    table = metadata["distribution"][0]
    assert table["sha256"] == hashlib.sha256((out / table["contentUrl"]).read_bytes()).hexdigest()
    with (out / "samples.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(masks)
    for row in rows:
        assert (out / row["image"]).is_file()
        assert (out / row["mask"]).is_file()
    assert {"name": "ignore", "value": 255} in [
        {key.rpartition("/")[2]: value for key, value in row.items()}
        for row in metadata["recordSet"][0]["data"]
    ]


def test_there_is_no_way_back(tmp_path):
    with pytest.raises(DataError, match="cannot be imported"):
        Croissant().read(tmp_path)
