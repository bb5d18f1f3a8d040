from pathlib import Path

import pytest
from tests.unit.data.coco_file import write_data
from tests.unit.data.voc_set import SIZES, write_sbd, write_voc

from tag2mask.cli.main import main
from tag2mask.cli.prepare import summary_lines
from tag2mask.data import published_sets
from tag2mask.data.published_sets import SetReport, check_coco, check_voc


def test_summary_contains_every_count():
    report = SetReport({"train": 1464, "val": 1449}, {"SegmentationClass": 2913})
    assert list(summary_lines(Path("VOC"), report)) == [
        "VOC: train 1,464, val 1,449 images, as published",
        "masks: SegmentationClass 2,913",
    ]


def test_voc_is_built_from_sbd_and_checked(tmp_path, capsys, monkeypatch):
    pytest.importorskip("scipy.io")
    voc, sbd = write_voc(tmp_path / "VOC2012"), write_sbd(tmp_path / "SBD")
    monkeypatch.setattr(published_sets, "VOC_SIZES", SIZES)
    monkeypatch.setattr(published_sets, "check_voc", lambda root: check_voc(root, SIZES))
    assert main(["prepare", "voc", str(tmp_path), "--sbd", str(sbd)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "SegmentationClassAug: 2 masks from SBD, 2 from VOC, 0 were there already",
        f"{voc}: train 2, val 1, train_aug 4 images, as published",
        "masks: SegmentationClass 3, SegmentationClassAug 4",
        f"ready: tag2mask train rml/voc_mitb1 data.root={voc} --out RUN",
    ]


def test_a_set_of_another_size_ends_with_exit_code_2(tmp_path, capsys):
    voc = write_voc(tmp_path / "VOC2012")
    assert main(["prepare", "voc", str(voc)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "train_aug.txt: is missing" in line
    (voc / "ImageSets" / "Segmentation" / "train_aug.txt").write_text("2007_000032\n2007_000039\n")
    assert main(["prepare", "voc", str(voc)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "train has 2 images, the published scores use 1,464" in lines[0]


def test_coco_is_checked_and_warnings_are_printed(tmp_path, capsys, monkeypatch):
    counts = {"train2014": 2, "val2014": 2}
    for split in counts:
        write_data(tmp_path, split=split)
    monkeypatch.setattr(published_sets, "COCO_CLASSES", ("person", "dog", "toothbrush"))
    monkeypatch.setattr(published_sets, "check_coco", lambda root: check_coco(root, counts))
    assert main(["prepare", "coco", str(tmp_path)]) == 0
    assert f"{tmp_path}: train2014 2, val2014 2 images, as published" in capsys.readouterr().out
    monkeypatch.undo()
    assert main(["prepare", "coco", str(tmp_path)]) == 2
    assert "the published scores use 82,081" in capsys.readouterr().err


def test_wrong_lines_are_rejected(tmp_path, capsys):
    for words, message in {
        ("coco", str(tmp_path), "--sbd", "D"): "--sbd: belongs to 'prepare voc'",
        ("cocoo", str(tmp_path)): "Did you mean 'coco'?",
        ("voc",): "missing argument 'ROOT'",
        ("voc", str(tmp_path)): "there is no folder JPEGImages",
    }.items():
        assert main(["prepare", *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
