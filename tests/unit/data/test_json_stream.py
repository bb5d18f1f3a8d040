import json

import pytest

from tag2mask.data import json_stream
from tag2mask.data.json_stream import JSONStream
from tag2mask.errors import DataError

WHOLE = {"a": [1, {"b": "\u00e9]}"}, [2]], "none": [], "n": -1.5e3, "t": {"x": [True, None]}}


def _read(path):
    with JSONStream(path) as stream:
        return {
            name: [found.value for found in stream.elements()]
            if stream.is_list()
            else stream.value()
            for name in stream.members()
        }


@pytest.mark.parametrize("block", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_members_are_those_of_json(tmp_path, monkeypatch, block, indent):
    monkeypatch.setattr(json_stream, "_BLOCK", block)
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(WHOLE, indent=indent).encode() + b"\n")
    assert _read(path) == WHOLE


def test_places_are_those_of_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_BLOCK", 4)
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"s": "\u00e9", "a": ["\u20ac", 12]}, ensure_ascii=False), "utf-8")
    with JSONStream(path) as stream:
        for name in stream.members():
            if name == "a":
                places = [(found.start, found.end) for found in stream.elements()]
            else:
                stream.value()
    content = path.read_bytes()
    assert [json.loads(content[start:end]) for start, end in places] == ["\u20ac", 12]


@pytest.mark.parametrize("end", range(1, len(json.dumps(WHOLE)) - 1))
def test_a_file_cut_off_anywhere_is_told(tmp_path, end):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(WHOLE)[:end])
    with pytest.raises(DataError, match=r"a\.json: is cut off or no readable JSON \(.*byte"):
        _read(path)


@pytest.mark.parametrize("text", ["", "[1]", "nonsense", '{"a" 1}', '{"a": [1 2]}', '{"a": 1'])
def test_other_files_are_rejected(tmp_path, text):
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"cut off or no readable JSON"):
        _read(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(DataError, match=r"b\.json: cannot be read"):
        JSONStream(tmp_path / "b.json")
