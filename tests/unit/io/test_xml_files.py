from pathlib import Path

import pytest

from tag2mask.errors import DataError
from tag2mask.io.xml_files import read_xml


def test_elements_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<a><object><name>cat</name></object></a>")
    assert [node.text for node in read_xml(path).iterfind("object/name")] == ["cat"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid XML"),
        ("<a><b></a>", "not valid XML"),
        ("<!DOCTYPE a [<!ENTITY b 'cc'>]><a>&b;&b;</a>", "it has a <!DOCTYPE>; remove it"),
        ("<!doctype a><a/>", "it has a <!doctype>; remove it"),
    ],
)
def test_broken_xml_and_entities_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.xml"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"a\.xml: .*{message}") as caught:
        read_xml(path)
    assert len(caught.value.problems) == 1
