import pytest

from tag2mask.app import serve
from tag2mask.cli.main import main


@pytest.fixture
def opened(monkeypatch):
    """What the page was opened with, instead of serving it."""
    calls = []

    def record(workspace, socket, **options):
        calls.append((workspace, socket.getsockname(), options))
        socket.close()
        workspace.close()

    monkeypatch.setattr(serve, "serve", record)
    return calls


@pytest.fixture
def run(segmenter, tmp_path):
    segmenter.save_pretrained(tmp_path / "run")
    return str(tmp_path / "run")


def test_the_page_of_a_folder_is_opened_on_this_machine(opened, run, image_folder, capfd):
    pytest.importorskip("uvicorn")
    data = image_folder()
    words = ["app", run, str(data), "--port", "0", "predict.background=0.3", "--auth", "a:b"]
    assert main(words) == 0
    ((workspace, address, options),) = opened
    assert address[0] == "127.0.0.1"
    assert options == {"auth": "a:b", "any_host": False}
    assert workspace.maker.background == 0.3
    out = capfd.readouterr().out
    assert f"http://127.0.0.1:{address[1]} (4 images of {data}" in out
    assert f"corrected masks go to {data / 'masks'}" in out


def test_other_machines_need_a_password(opened, run, capfd):
    pytest.importorskip("uvicorn")
    assert main(["app", run, "--host", "0.0.0.0"]) == 2
    assert "add --auth USER:PASSWORD" in capfd.readouterr().err
    assert main(["app", run, "--host", "0.0.0.0", "--port", "0", "--auth", "a:b"]) == 0
    assert opened[0][2] == {"auth": "a:b", "any_host": True}


def test_a_mistake_is_one_line(opened, run, tmp_path, capfd):
    pytest.importorskip("uvicorn")
    for words, reason in [
        ([run, "--auth", "anna"], "--auth takes USER:PASSWORD"),
        ([run, str(tmp_path / "none"), "--port", "0"], "no such folder"),
        ([run, "--save", "x", "--port", "0"], "tag2mask app RUN DATA"),
        ([str(tmp_path / "norun"), "--port", "0"], "no such run folder"),
        ([run, "--port", "70000"], "'--port'"),
    ]:
        assert main(["app", *words]) == 2
        error = capfd.readouterr().err
        assert reason in error
        assert len(error.splitlines()) == 1
    assert opened == []
