import pytest

from tag2mask.cli.launch import is_first, is_launched, launched_processes, own_shard
from tag2mask.cli.main import main


def test_without_a_launcher_there_is_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # some clusters set it for every job
    assert not is_launched()
    assert launched_processes() == 1
    assert is_first()


def test_a_launcher_says_how_many_and_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert (launched_processes(), is_first()) == (2, False)
    monkeypatch.setenv("RANK", "0")
    assert is_first()


def test_each_process_of_a_launch_labels_a_shard_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert own_shard(None, None) == (None, None)
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "2")
    assert own_shard(None, None) == (3, 2)
    assert own_shard(16, 4) == (16, 4)  # as typed
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert own_shard(None, None) == (None, None)


@pytest.mark.parametrize("words", [["list", "methods"], ["evaluate", "MASKS", "TRUTH"]])
def test_a_command_that_shares_no_work_is_refused_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, lines in (("0", 1), ("1", 0)):
        monkeypatch.setenv("RANK", rank)
        assert main(words) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert len(captured.err.splitlines()) == lines
        if lines:
            assert captured.err == (
                f"error: {words[0]}: the launcher started 2 processes, which would all do the same "
                f"work; start it once: tag2mask {words[0]} ...\n"
            )
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["list", "methods"]) == 0
