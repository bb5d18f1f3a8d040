"""Two training steps of every method, as the only process of a run or as one of two.

In float64: in float32, rounding lets single units change the side of a ReLU, which changes
gradients by more than the errors that are looked for.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from tests.conformance.stand_ins import METHODS, small_method
from torch import Tensor, nn

from tag2mask import plugins
from tag2mask.config.schema import RefinerConfig
from tag2mask.functional.cam import upsample
from tag2mask.refiners.base import Refiner
from tag2mask.training.runtime import Runtime
from tag2mask.types import IGNORE, Batch

STEPS = (0, 9)
"""One within every warm-up of a 10-step run, one after it."""
IMAGES, SIDE = 4, 64
BACKBONE = {"name": "tiny", "width": 8}
TAGS = [[1, 0, 0], [0, 1, 0], [1, 0, 1], [0, 0, 0]]
TAGS_OF = {
    "aeft": [[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 0]],  # the only pair without a common class
    "oc_cse": [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 0, 0]],  # one class that can be drawn
}
"""Tags that leave nothing to chance, where a method draws by tags."""


@dataclass(frozen=True)
class Case:
    """A method with some of its settings."""

    method: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    true_masks: bool = False
    """Whether one image of the first half of the batch and both of the second have a true mask."""

    def __str__(self) -> str:
        words = [self.method, *(f"{key}={value}" for key, value in self.changes.items())]
        return " ".join([*words, "true_masks"] if self.true_masks else words)


CASES = [
    *(Case(name) for name in METHODS),
    Case("aeft", {"pooling": "gap", "num_classified": 3, "min_hard_pairs": 0}),
    Case("aeft", {"num_classified": 1, "min_hard_pairs": 1, "margin": 4.0}),
    Case("afa", {"thresholds": "auto", "warmup_rule": "auto"}),
    Case("afa", true_masks=True),
    Case("cam", {"pooling": "ngwp"}),
    Case("cam", {"pooling": "gpp"}, true_masks=True),
    Case("irn", {"displacement": True}),
    Case("oc_cse", {"pooling": "gmp"}),
    Case("recam", {"class_loss": "mean"}),
    Case("rml", {"information": "gauss_full", "affinity_information": "gap"}),
    Case("rml", {"information": "club", "affinity_information": "cond"}),
    Case("rml", {"information": "kl", "prototype": "cam_grid", "small_affinity": 1.0}),
    Case("rml", {"information": "released", "classify_both": True, "equivariance": "all"}),
    Case("seam", {"pooling": "gpp"}),
    Case("supervised", {"head": "aspp"}),
]


def full_batch(case: Case) -> Batch:
    """Return four images with tags, masks and paddings that differ from image to image."""
    generator = torch.Generator().manual_seed(7)
    coarse = torch.randint(0, 256, (IMAGES, 3, 6, 6), generator=generator).float()
    image: Tensor = upsample(coarse, (SIDE, SIDE)).to(torch.uint8)
    valid = torch.ones(IMAGES, SIDE, SIDE, dtype=torch.bool)
    valid[1, :, : SIDE // 4] = False
    valid[3, : SIDE // 2] = False
    tags = torch.tensor(TAGS_OF.get(case.method, TAGS)).double()
    mask = 2 * (image[:, 0] > 127).long()
    mask[0, SIDE // 2 :, : SIDE // 4] = 1
    mask[2, :, : SIDE // 3] = 3
    mask[:, : SIDE // 8] = IGNORE
    mask[~valid] = IGNORE
    masked_rows: tuple[int, ...] = ()
    if case.true_masks:
        masked_rows = (1, 2, 3)
        mask[0] = IGNORE
    max_tags = int(tags.sum(dim=1).max())
    return Batch(image, tags, valid, tuple("abcd"), mask, masked_rows, max_tags)


def part_of(batch: Batch, rank: int, world: int) -> Batch:
    """Return the images of one process."""
    size = IMAGES // world
    rows = slice(rank * size, (rank + 1) * size)
    masked = tuple(row - rows.start for row in batch.masked_rows if row in range(IMAGES)[rows])
    tags = batch.tags[rows]
    return replace(
        batch,
        image=batch.image[rows],
        tags=tags,
        valid=batch.valid[rows],
        name=batch.name[rows],
        mask=batch.mask[rows],
        masked_rows=masked,
        max_tags=int(tags.sum(dim=1).max()),
    )


class Unrefined(Refiner):
    """Leaves every image as it is. Real refiners see one image at a time, too."""

    Config = RefinerConfig

    def refine(self, image: Tensor, probs: Tensor) -> Tensor:
        return probs


def without_chance(method: nn.Module) -> nn.Module:
    """Switch off everything that draws numbers for each image."""
    for module in method.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
        if hasattr(module, "stochastic"):
            module.stochastic = False
    return method


@contextmanager
def float64() -> Iterator[None]:
    """Compute everything in float64, also what asks for float32."""
    float32 = Tensor.float
    torch.set_default_dtype(torch.float64)
    Tensor.float = Tensor.double
    try:
        yield
    finally:
        Tensor.float = float32
        torch.set_default_dtype(torch.float32)


@float64()
def take_steps(cases: Iterable[Case]) -> dict[str, dict[str, Tensor]]:
    """Take two steps of gradient descent with each method of some cases.

    Returns:
        By case: the losses and gradients of each step, and the final state.
    """
    runtime = Runtime("fp32")
    found = {str(case): take_steps_of(case, runtime) for case in cases}
    runtime.shutdown()
    return found


def take_steps_of(case: Case, runtime: Runtime) -> dict[str, Tensor]:
    """Take two steps of gradient descent in this process of a run, or in its only one."""
    changes = dict(case.changes)
    if "label_precision" in plugins.load("methods", case.method).Config.model_fields:
        changes["label_precision"] = "fp32"  # bf16 would round what decides about a label
    if case.method == "rrm":
        changes["energy_weight"] = 0.0  # a mean over images, which compiles for long in float64
    method = without_chance(small_method(case.method, backbone=BACKBONE, **changes)).train()
    method.double()
    method.refiner = Unrefined(RefinerConfig(name="none"))
    if not runtime.is_main:
        with torch.no_grad():
            for value in method.parameters():
                value.add_(1)  # the first process gives the others its weights
    trained = [value for value in method.parameters() if value.requires_grad]
    runtime.prepare(method, lambda: torch.optim.SGD(trained, lr=0.01))
    found: dict[str, Tensor] = {}
    batch = part_of(full_batch(case), runtime.rank, runtime.world)
    for step in STEPS:
        losses = runtime.backward(batch, step, share=1.0, last=True)
        found |= {f"{step} {name} (loss)": value for name, value in losses.items()}
        found |= {
            f"{step} {name}": value.grad.clone()
            for name, value in method.named_parameters()
            if value.grad is not None
        }
        runtime.update(None)
    return found | {f"after {name}": value.clone() for name, value in method.state_dict().items()}


def run_rank(rank: int, port: int, folder: Path) -> None:
    """Run every case as one of two processes, and write what it found."""
    torch.set_num_threads(1)
    words = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in words.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.save(take_steps(CASES), folder / f"{rank}.pt")
