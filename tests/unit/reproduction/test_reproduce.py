"""What is planned and printed; tests/integration/test_reproduce.py runs complete tables."""

import json

from tag2mask.reproduction.reproduce import open_reproduction, table_lines
from tag2mask.reproduction.runner import Runner
from tag2mask.reproduction.table import available_tables


def test_every_bundled_table_has_a_line_with_its_data_sets():
    lines = list(table_lines())
    assert [line.split()[0] for line in lines] == available_tables()
    (line,) = [line for line in lines if line.startswith("rml_1 ")]
    assert line.endswith("RML, Table 1: Losses of RML, added one by one (animals, voc)")


def test_a_plan_says_what_is_trained_scored_and_finished(tmp_path):
    keys = {"optim.steps": "600"}
    reproduction = open_reproduction(
        "compared", "animals", Runner(tmp_path), rows=["advcam", "gap_256"], overrides=keys
    )
    lines = list(reproduction.planned_lines())
    assert [line.split(",")[0] for line in lines if not line.startswith(" ")] == [
        "gap_256",
        "advcam",
    ]
    assert lines[0].endswith("cam, classes from tags, train, threshold from devval")
    assert "tag2mask train cam/animals_mobilenet" in lines[1]
    assert lines[2] == "  then, to make masks: predict.long_side_px=256"
    path = reproduction.runner.scores_file(reproduction.plans[0])
    path.parent.mkdir(parents=True)
    scored = {"classes": [], "seconds": {}, "images": {}, "scores": {}}
    path.write_text(json.dumps({**scored, "machine": {"device": "cpu"}}))
    assert "(finished)" in next(reproduction.planned_lines())


def test_the_table_is_written_before_any_row_is_finished(tmp_path):
    reproduction = open_reproduction(
        "rml_4", "coco", Runner(tmp_path), seeds=[1, 2], command="tag2mask reproduce rml_4"
    )
    reproduction.save()
    values = json.loads((tmp_path / "rml_4_coco.json").read_text())
    assert values["command"] == "tag2mask reproduce rml_4"
    assert values["rows"]["rml_crf"]["paper"] == {"mIoU": 40.0}
    text = (tmp_path / "rml_4_coco.md").read_text()
    assert "| RML + CRF (Ours), I, MiT-B1 | 40.0 | - |" in text
    assert text.startswith("# Final segmentation on COCO 2014: RML, Table 4, on coco\n")
