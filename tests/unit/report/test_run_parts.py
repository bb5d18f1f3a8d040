from pathlib import Path

from tag2mask.report.run_parts import read_run


def test_whole_run_misses_nothing(run: Path) -> None:
    parts = read_run(run)
    assert parts.missing == ()
    assert parts.recipe is not None
    assert parts.recipe.data.classes == ("cat", "cow")


def test_torn_last_log_line_is_left_out(run: Path) -> None:
    assert [record["step"] for record in read_run(run).log] == [0, *range(10, 110, 10), 100]


def test_scores_come_from_files_and_from_best_and_last_evaluation(run: Path) -> None:
    found = {title: score["miou"] for title, score in read_run(run).scores.items()}
    expected = {
        "train": 0.456,
        "best in training, step 50": 0.31,
        "last in training, step 100": 0.3,
    }
    assert found == expected


def test_only_strips_of_the_last_step_are_taken(run: Path) -> None:
    assert [path.stem for path in read_run(run).strips] == ["step000100_00_a", "step000100_01_b"]


def test_each_missing_part_is_named(run: Path) -> None:
    for path in [
        *run.glob("*.json"),
        *run.glob("samples/*"),
        run / "log.jsonl",
        run / "recipe.yaml",
    ]:
        path.unlink()
    missing = "\n".join(read_run(run).missing)
    for part in ("recipe.yaml", "log.jsonl", "metrics.json", "IoU per class"):
        assert part in missing


def test_reason_for_missing_scores_is_told(run: Path) -> None:
    (run / "train.json").unlink()
    (run / "metrics.json").write_text('{"best": {"why": "best is last: no image is held out"}}')
    assert "no image is held out" in read_run(run).missing[-1]


def test_unreadable_recipe_and_metrics_do_not_stop_the_page(run: Path) -> None:
    (run / "recipe.yaml").write_text("data: {name: nothing}")
    (run / "metrics.json").write_text("{")
    parts = read_run(run)
    assert parts.recipe is None
    assert len(parts.missing) == 2
