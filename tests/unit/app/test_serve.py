import sys

import pytest

from tag2mask.app.serve import is_local, open_socket, require_extra
from tag2mask.errors import MissingExtraError, RunError


def test_port_0_takes_a_free_port():
    with open_socket("127.0.0.1", 0) as first, open_socket("127.0.0.1", 0) as second:
        assert 0 < first.getsockname()[1] != second.getsockname()[1]


def test_a_taken_port_is_one_line_with_the_way_out():
    reason = r"port \d+ of 127.0.0.1 cannot be used.*--port 0"
    with open_socket("127.0.0.1", 0) as first, pytest.raises(RunError, match=reason):
        open_socket("127.0.0.1", first.getsockname()[1])


def test_a_foreign_address_is_one_line():
    with pytest.raises(RunError, match="cannot be used"):
        open_socket("192.0.2.1", 0)


def test_only_addresses_of_this_machine_are_local():
    assert all(map(is_local, ("127.0.0.1", "localhost", "::1")))
    assert not any(map(is_local, ("0.0.0.0", "::", "192.168.1.5", "lab.example", "")))


def test_a_missing_server_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(MissingExtraError, match=r"tag2mask\[app\]"):
        require_extra()
