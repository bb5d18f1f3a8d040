import hashlib
from itertools import product

from tag2mask.io.equal_files import equal_files


def test_files_of_equal_content_are_found_as_by_hashing_all_of_them(tmp_path):
    contents = [b"", b"a", b"b", b"x" * 9000, b"y" + b"x" * 8999, b"x" * 8999 + b"y"]
    paths = []
    for index, (content, copy) in enumerate(product(contents, range(2))):
        paths.append(tmp_path / f"{index}{copy}")
        paths[-1].write_bytes(content)
    paths.append(tmp_path / "missing")
    by_hash = {}
    for path in paths[:-1]:
        if path.read_bytes():
            by_hash.setdefault(hashlib.sha256(path.read_bytes()).digest(), []).append(path)
    groups = equal_files(paths)
    assert sorted(groups) == sorted(group for group in by_hash.values() if len(group) > 1)
    assert len(groups) == 5


def test_files_that_differ_in_the_middle_are_not_equal(tmp_path):
    for name, letter in {"a": b"1", "b": b"2"}.items():
        (tmp_path / name).write_bytes(b"h" * 5000 + letter + b"t" * 5000)
    assert equal_files([tmp_path / "a", tmp_path / "b"]) == []
