"""A run folder as training leaves it, written by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image as PILImage

RECIPE = """
data:     {name: voc, root: nowhere, classes: [cat, cow]}
backbone: {name: hybrid, weights: null}
method:   {name: cam}
"""


def scores(miou: float, class_source: str) -> dict[str, Any]:
    settings = {"scales": [1.0, 0.5], "flip": True, "refiner": {"name": "par"}, "background": 0.45}
    return {
        "class_names": ["cat", "cow"],
        "iou": [0.9, miou, None],
        "miou": miou,
        "images": 12,
        "class_source": class_source,
        "settings": settings,
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "pets <1>"
    (folder / "samples").mkdir(parents=True)
    (folder / "recipe.yaml").write_text(RECIPE)
    start = {
        "event": "start",
        "step": 0,
        "seed": 7,
        "command": "tag2mask train x --out <RUN>",
        "versions": {"torch": "9.9"},
        "weights_license": "Apache-2.0",
    }
    lines = [start]
    for step in range(10, 110, 10):
        losses = {"classification": 1 / step, "affinity": None if step == 10 else 0.1}
        line = {"step": step, "loss": sum(v or 0 for v in losses.values()), "losses": losses}
        lines.append(
            line | {"monitor": {"empty_cams": 0.0}, "lr": {"base": 1e-5}, "images_per_s": 3.5}
        )
    lines.append({"step": 100, "event": "evaluation", "score": 0.31})
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "log.jsonl").write_text(text + '{"step": 110, "lo')  # the run was interrupted
    history = [
        {"step": step, "score": score, "detail": scores(score, "classifier")}
        for step, score in ((50, 0.31), (100, 0.3))
    ]
    metrics = {
        "step": 100,
        "steps": 200,
        "finished": False,
        "seconds": 3725,
        "metric": "mIoU",
        "best": {"step": 50, "score": 0.31, "reason": "mIoU on held-out images"},
        "history": history,
    }
    (folder / "metrics.json").write_text(json.dumps(metrics))
    (folder / "train.json").write_text(json.dumps(scores(0.456, "tags")))
    (folder / "other.json").write_text('{"no": "report"}')
    for name in ("step000050_00_a", "step000100_00_a", "step000100_01_b"):
        PILImage.new("RGB", (4, 4)).save(folder / "samples" / f"{name}.png")
    return folder
