import pytest

from tag2mask.cli.main import main, run
from tag2mask.errors import RecipeError, Tag2MaskError


@pytest.mark.parametrize(
    ("line", "kind", "words"),
    [
        ("R --out O", Tag2MaskError, "missing argument 'IMAGE'"),
        ("R a.jpg", Tag2MaskError, "missing option '--out'"),
        ("R a.jpg --out O optim.lr=1", RecipeError, "is fixed by training"),
        ("R a.jpg --out O --tags cat", Tag2MaskError, "unknown option '--tags'"),
    ],
)
def test_wrong_lines_are_rejected_before_a_network_is_loaded(line, kind, words):
    with pytest.raises(kind, match=words):
        run(["predict", *line.split()])


def test_shards_and_engine_reach_the_function(monkeypatch):
    calls = []
    monkeypatch.setattr("tag2mask.api.predict", lambda *given, **options: calls.append(options))
    monkeypatch.setattr("tag2mask.cli.predict.print_summary", lambda *given, **options: None)
    monkeypatch.setattr("tag2mask.io.image_inputs.ignored_files", lambda paths: [])
    for words in ("--shards 16 --shard 3", "--engine ray --workers 8"):
        main(f"predict RUN a.jpg --out MASKS {words}".split())
    assert [(one["shards"], one["shard"], one["engine"]) for one in calls] == [
        (16, 3, "local"),
        (None, None, "ray"),
    ]
