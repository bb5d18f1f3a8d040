from pathlib import Path

import pytest

from tag2mask.errors import DataError
from tag2mask.formats.dataset_folder import find_labels, read_data_file, write_data_file


@pytest.mark.parametrize("text", ["names: {0: cat, 1: '2'}", "names: [cat, 2]"])
def test_names_are_a_list_or_a_mapping_from_zero(tmp_path: Path, text: str) -> None:
    (tmp_path / "data.yaml").write_text(text)
    assert read_data_file(tmp_path)["names"] == ["cat", "2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"give the unpacked folder of the data set, with its data\.yaml"),
        ("names: [", "is not valid YAML"),
        ("names: {1: cat}", "needs names with the class of each index from 0"),
        ("names: []", "needs names"),
        ("cat", "needs names"),
    ],
)
def test_faulty_data_file_is_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_data_file(tmp_path)
    assert "\n" not in str(caught.value)


def test_written_data_file_is_read_back(tmp_path: Path) -> None:
    write_data_file(tmp_path, {0: "no", 1: "Kühe: alle"}, "a note", "masks")
    content = read_data_file(tmp_path)
    assert content["names"] == ["no", "Kühe: alle"]
    assert content["masks_dir"] == "masks"
    assert (tmp_path / "data.yaml").read_text("utf-8").startswith("# a note\n")


def test_missing_labels_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels/train: no such folder"):
        list(find_labels(tmp_path, "labels", ".txt"))
