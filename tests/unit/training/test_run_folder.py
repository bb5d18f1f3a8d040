import pytest

from tag2mask.config.recipe import parse_recipe
from tag2mask.errors import RunError
from tag2mask.io.files import temporary_beside
from tag2mask.training.run_folder import RunFolder, check_same_recipe


def test_new_and_empty_folders_may_be_used(tmp_path):
    RunFolder(tmp_path / "new").check(resume=False)
    RunFolder(tmp_path).check(resume=False)


def test_a_folder_that_is_not_empty_is_rejected(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunError, match=r"is not empty; choose another folder$"):
        RunFolder(tmp_path).check(resume=False)
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(RunError, match="is not empty; choose another folder, or --resume"):
        RunFolder(tmp_path).check(resume=False)


def test_leftovers_of_a_killed_first_write_are_allowed(tmp_path):
    temporary_beside(tmp_path / "recipe.yaml").mkdir()
    RunFolder(tmp_path).check(resume=False)


def test_a_file_is_rejected(tmp_path):
    path = tmp_path / "run"
    path.touch()
    for resume in (False, True):
        with pytest.raises(RunError, match="is a file"):
            RunFolder(path).check(resume=resume)


def test_only_a_run_can_be_resumed(tmp_path):
    with pytest.raises(RunError, match=r"no run to resume \(no recipe\.yaml\)"):
        RunFolder(tmp_path).check(resume=True)
    (tmp_path / "recipe.yaml").touch()
    RunFolder(tmp_path).check(resume=True)


def test_paths_have_the_documented_names(tmp_path):
    folder = RunFolder(tmp_path)
    paths = (folder.recipe, folder.log, folder.metrics, folder.samples, folder.weights("best"))
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [
        "recipe.yaml",
        "log.jsonl",
        "metrics.json",
        "samples",
        "weights/best.safetensors",
    ]
    assert folder.state.parent == tmp_path / "state"


def test_resuming_allows_only_changes_that_do_not_affect_the_weights(toy, tmp_path):
    before = toy.recipe()
    check_same_recipe(
        before, toy.recipe(run__workers=2, run__log_every=1, data__root="x"), tmp_path
    )
    check_same_recipe(before, toy.recipe(predict__batch_size=4), tmp_path)
    with pytest.raises(RunError, match=r"optim\.lr was 0\.01, now 0\.5; run\.seed was 1, now 2"):
        check_same_recipe(before, toy.recipe(optim__lr=0.5, run__seed=2), tmp_path)


def test_a_key_missing_from_an_older_run_has_its_default(toy, tmp_path):
    raw = toy.recipe().model_dump(mode="json")
    del raw["optim"]["optimizer"], raw["data"]["flip"]
    before = parse_recipe(raw, "old")
    check_same_recipe(before, toy.recipe(), tmp_path)
    with pytest.raises(RunError, match=r"optim\.optimizer was 'adamw', now 'sgd'"):
        check_same_recipe(before, toy.recipe(optim__optimizer="sgd"), tmp_path)


def test_a_run_is_finished_if_its_metrics_say_so_and_it_has_weights(tmp_path):
    folder = RunFolder(tmp_path)
    assert not folder.is_finished
    folder.weights("last").parent.mkdir()
    folder.weights("last").touch()
    for text, finished in (('{"finished": false}', False), ('{"fin', False), ("{}", False)):
        folder.metrics.write_text(text)
        assert folder.is_finished is finished
    folder.metrics.write_text('{"finished": true}')
    assert folder.is_finished
    folder.weights("last").unlink()
    assert not folder.is_finished


def test_earlier_networks_are_compared_by_fingerprint_not_by_recipe(toy, tmp_path):
    now = toy.recipe()
    before = now.model_copy(update={"earlier": {"cam": toy.recipe(optim__steps=3)}})
    check_same_recipe(before, now, tmp_path)
    with pytest.raises(RunError, match=r"inputs\.cam was '1f', now '2e'"):
        check_same_recipe(
            before.model_copy(update={"inputs": {"cam": "1f"}}),
            now.model_copy(update={"inputs": {"cam": "2e"}}),
            tmp_path,
        )


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets what torchrun tells its processes."""

    def set_launch(name, restarts=0):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", name)
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", str(restarts))

    return set_launch


@pytest.mark.parametrize("name", ["a1b2", "none"])
def test_a_restart_of_the_same_launch_continues_its_own_folder(tmp_path, launched, name):
    folder = RunFolder(tmp_path / "run")
    launched(name)
    folder.check(resume=False)
    folder.record_launch()
    assert not folder.is_restart
    with pytest.raises(RunError, match="is not empty"):
        folder.check(resume=False)  # a second launch with the same command
    launched(name, restarts=1)
    assert folder.is_restart
    folder.check(resume=False)


def test_a_restart_of_another_launch_is_refused_a_used_folder(tmp_path, launched):
    folder = RunFolder(tmp_path / "run")
    launched("first")
    folder.record_launch()
    launched("second", restarts=1)
    with pytest.raises(RunError, match="is not empty"):
        folder.check(resume=False)


def test_without_torchrun_no_launch_is_recorded(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    RunFolder(tmp_path).record_launch()
    assert list(tmp_path.iterdir()) == []
