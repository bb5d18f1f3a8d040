from pathlib import Path

import pytest

from tag2mask.io.images import IMAGE_SUFFIXES
from tag2mask.io.other_files import FILE_KINDS, by_kind, is_address, kind_of


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.MP4", "video"),
        ("a.tar.gz", "archive"),
        ("a.nef", "raw camera file"),
        ("a.pdf", "document"),
        ("a.dcm", "scientific image"),
        ("a.csv", "text file"),
        ("a", "other file"),
    ],
)
def test_kind_of_a_file_is_known_by_its_suffix(name, kind):
    assert kind_of(Path(name)).name == kind


def test_no_suffix_belongs_to_two_kinds_or_to_images():
    suffixes = [suffix for kind in FILE_KINDS for suffix in kind.suffixes]
    assert len(suffixes) == len(set(suffixes))
    assert not IMAGE_SUFFIXES & set(suffixes)


def test_files_are_sorted_by_kind():
    found = by_kind(map(Path, ("n.txt", "b.zip", "a.mov", "c.mp4")))
    assert {kind.name: [path.name for path in paths] for kind, paths in found.items()} == {
        "video": ["a.mov", "c.mp4"],
        "archive": ["b.zip"],
        "text file": ["n.txt"],
    }


def test_addresses_are_no_paths():
    assert is_address(Path("https://example.org/a.jpg"))
    assert is_address(Path("S3://bucket/a.jpg"))
    assert not is_address(Path("C:/images/a.jpg"))
    assert not is_address(Path("https.jpg"))
