"""What the line passes on; tests/unit/inference/test_tagged_folder.py opens the data."""

from pathlib import Path

from tag2mask.cli.main import main


def test_the_words_of_the_line_reach_the_function(monkeypatch):
    calls = []

    def label(*given, **options):
        calls.append((given, options))

    monkeypatch.setattr("tag2mask.api.label", label)
    monkeypatch.setattr("tag2mask.cli.label.print_summary", lambda *given, **options: None)
    line = "label RUN DATA predict.background=0.4 --split val --workers 3 --out MASKS"
    assert main(line.split()) == 0
    ((given, options),) = calls
    assert given == ("RUN", Path("DATA"), Path("MASKS"))
    assert options["overrides"] == {"predict.background": "0.4"}
    assert (options["split"], options["workers"], options["which"]) == ("val", 3, "best")


def test_shards_and_engine_reach_the_function(monkeypatch):
    calls = []
    monkeypatch.setattr("tag2mask.api.label", lambda *given, **options: calls.append(options))
    monkeypatch.setattr("tag2mask.cli.label.print_summary", lambda *given, **options: None)
    for words in ("--shards 16 --shard 3", "--engine ray --workers 8"):
        main(f"label RUN DATA --out MASKS {words}".split())
    assert [(one["shards"], one["shard"], one["engine"]) for one in calls] == [
        (16, 3, "local"),
        (None, None, "ray"),
    ]
