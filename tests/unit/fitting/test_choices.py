from pathlib import Path

import pytest

from tag2mask.config.recipe import recipe_path
from tag2mask.fitting.choices import choose_data, choose_settings, fit_steps
from tag2mask.fitting.facts import DataFacts, MachineFacts
from tag2mask.io.yaml_files import read_yaml

LAPTOP = MachineFacts(cores=2, memory_gib=16)
SERVER = MachineFacts(cores=16, memory_gib=64, gpu="H100", gpu_memory_gib=80, has_bf16=True)


def facts(**changed):
    values = {
        "root": Path("photos"),
        "source": "folder",
        "classes": {"cat": 150, "dog": 120},
        "training_images": 300,
        "held_out_images": 30,
        "negatives": 0,
        "long_side_px": 500,
    }
    return DataFacts(**(values | changed))


def settings(data, machine=LAPTOP, recipe="rml/own_images", minutes=None):
    raw = read_yaml(recipe_path(recipe))
    return {choice.key: choice.value for choice in choose_settings(data, machine, raw, minutes)}


def test_the_reference_case_keeps_the_recipe():
    raw = read_yaml(recipe_path("rml/own_images"))
    for key, value in settings(facts()).items():
        section, name = key.split(".")
        if name not in ("workers", "long_side_px"):
            assert value == raw[section][name], key


def test_all_tags_in_use_become_classes():
    chosen = {choice.key: choice.value for choice in choose_data(facts())}
    assert chosen == {
        "data.name": "folder",
        "data.root": "photos",
        "data.classes": ["cat", "dog"],
    }


def test_lists_of_a_data_set_are_named():
    chosen = choose_data(facts(source="voc", lists={"split": "train", "val_split": "val"}))
    values = {choice.key: choice.value for choice in chosen}
    assert (values["data.split"], values["data.val_split"]) == ("train", "val")


def test_every_choice_has_a_reason():
    raw = read_yaml(recipe_path("rml/own_images_gpu"))
    machine = MachineFacts(2, 2.0, "old GPU", 8.0)
    choices = choose_settings(facts(held_out_images=2, long_side_px=100), machine, raw, 5)
    assert all(choice.reason.endswith(".") for choice in choices)
    assert len({choice.key for choice in choices}) == len(choices)


@pytest.mark.parametrize(
    ("long_side", "crop", "long_sides", "network_long_side"),
    [(4000, 192, (154, 307), 307), (300, 192, (154, 307), None), (100, 128, (103, 205), None)],
)
def test_size_follows_the_images(long_side, crop, long_sides, network_long_side):
    chosen = settings(facts(long_side_px=long_side))
    assert chosen["data.crop_px"] == crop
    assert (chosen["data.long_side_min_px"], chosen["data.long_side_max_px"]) == long_sides
    assert chosen.get("predict.long_side_px") == network_long_side


@pytest.mark.parametrize(
    ("images", "cores", "minutes", "steps"),
    [
        (300, 2, None, 240),
        (40, 2, None, 240),  # few images get no fewer steps: the network still has to learn
        (1200, 2, None, 480),  # four times the images: twice the steps
        (300, 1, None, 240),  # a slow machine takes longer
        (300, 8, None, 630),  # 4 ** 0.7 = 2.64 times
        (300, 128, None, 960),  # at most four times
        (300, 2, 30, 720),
        (300, 1, 10, 150),  # 0.5 ** 0.7 = 0.616 times
        (300, 2, 1, 50),
    ],
)
def test_steps_follow_images_cores_and_minutes(images, cores, minutes, steps):
    machine = MachineFacts(cores=cores, memory_gib=16)
    assert fit_steps(240, facts(training_images=images), machine, minutes) == steps


def test_a_gpu_has_no_bonus_for_its_cores():
    assert fit_steps(2400, facts(), SERVER) == 2400


@pytest.mark.parametrize(("memory", "batch", "parts"), [(16, 8, None), (2, 4, 2), (0, 8, None)])
def test_little_memory_halves_the_batch(memory, batch, parts):
    chosen = settings(facts(), MachineFacts(cores=2, memory_gib=memory))
    assert chosen["optim.batch_size"] == batch
    assert chosen.get("optim.accumulate_steps") == parts


def test_fallback_needs_a_class_in_every_image():
    assert settings(facts())["predict.fallback"] is True
    assert settings(facts(negatives=3))["predict.fallback"] is False
    assert "predict.fallback" not in settings(facts(), recipe="cam/own_defects")


def test_few_held_out_images_choose_no_weights():
    assert settings(facts(held_out_images=3))["run.best"] == "last"
    assert "run.best" not in settings(facts())


def test_arithmetic_and_loaders_follow_the_machine():
    assert "run.precision" not in settings(facts(), SERVER, "rml/own_images_gpu")
    old = MachineFacts(4, 16, "old GPU", 16.0)
    assert settings(facts(), old, "rml/own_images_gpu")["run.precision"] == "fp32"
    assert settings(facts(), SERVER)["run.workers"] == 8
    assert settings(facts(), MachineFacts(1, 16))["run.workers"] == 1
