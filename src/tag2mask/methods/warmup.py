"""The end of the classifier warm-up: after which step the other losses of a method start."""

from __future__ import annotations

from collections import deque
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from tag2mask.config.schema import StepsOrFraction, resolve_steps
from tag2mask.errors import RecipeError
from tag2mask.functional.reduction import sum_over_ranks

WarmupRule = Literal["fixed", "auto"]
GUESS_FRACTION = 0.45
"""`auto` ends the warm-up when the loss falls below this fraction of that of guessing. In AFA's log
it is 0.11 at the end; on VOC 2012, guessing by the frequency of each class gives 0.247."""
LATEST = 0.5
"""Fraction of all steps after which `auto` ends the warm-up in any case."""
DECAY = 0.98
"""Weight of the earlier losses in the moving average, which covers about 50 steps."""
LAG = 8
"""Steps between the loss that decides and the end, so that the host never waits for a value."""
NEVER = -1
RATIO = "classification_ratio"
"""Name of the value to log during the warm-up."""


class _Copy(NamedTuple):
    """A value on its way to the host."""

    step: int
    value: Tensor
    arrival: torch.cuda.Event | None


class ClassifierWarmup(nn.Module):
    """Decides when the classifier warm-up is over.

    With `fixed`, it has a fixed length. With `auto`, it ends when the moving average of the
    classification loss shows a classifier that is about as good as AFA's at the same point: not
    before that length, and at half of all steps at the latest. The averages are buffers, so a run
    resumes exactly; they are the same in all processes.

    Args:
        rule: `fixed`, or `auto`.
        length: Length of the warm-up, with `auto` the shortest.
        steps: Optimizer steps of the run.
        num_foreground: F.

    Raises:
        RecipeError: If the warm-up is as long as the run.

    Source:
        Specification 2.9 and R17.
    """

    def __init__(
        self, rule: WarmupRule, length: StepsOrFraction, steps: int, num_foreground: int
    ) -> None:
        super().__init__()
        self.loss: Tensor
        self.tags: Tensor
        self.crossed: Tensor
        self.shortest = resolve_steps(length, steps)
        if self.shortest >= steps:
            raise RecipeError(
                f"method.warmup: {self.shortest:,} steps of classification leave none of the "
                f"{steps:,} steps of the run for the other losses; give a fraction, such as 0.1"
            )
        self.rule = rule
        self.latest = max(self.shortest, resolve_steps(LATEST, steps))
        self._end = self.shortest if rule == "fixed" else self.latest
        self._copies: deque[_Copy] = deque()
        if rule == "auto":
            self.register_buffer("loss", torch.zeros(2))  # weighted sum, sum of weights
            self.register_buffer("tags", torch.zeros(num_foreground + 1))  # per class, of images
            self.register_buffer("crossed", torch.tensor(NEVER))

    def is_over(self, step: int) -> bool:
        """Return whether the other losses have started at a step."""
        while self._copies and self._copies[0].step <= step - LAG:
            copy = self._copies.popleft()
            if copy.arrival is not None:
                copy.arrival.synchronize()
            self._set_end(copy.value.numpy().item())
        return step >= self._end

    @property
    def expected_end(self) -> int:
        """Step at which the warm-up ends; if only training can tell, halfway to the latest."""
        if self.rule == "fixed" or int(self.crossed) != NEVER:
            return self._end
        return (self.shortest + self.latest) // 2

    def finish(self, step: int) -> None:
        """End the warm-up at a step, whatever its rule says."""
        self._end = step
        self._copies.clear()

    @property
    def delay(self) -> int:
        """How many steps later than planned the warm-up ends; known when it is over."""
        return self._end - self.shortest

    @torch.no_grad()
    def observe(self, loss: Tensor, tags: Tensor, step: int) -> dict[str, Tensor]:
        """Take the classification loss and the (N, F) tags of a batch of the warm-up.

        Returns:
            What is worth logging: the average loss over that of guessing.
        """
        if self.rule == "fixed":
            return {}
        images = tags.new_full((), len(tags))
        total = sum_over_ranks(torch.stack([loss.detach().float() * images, images]))
        self.loss.mul_(DECAY).add_(total)
        self.tags.add_(sum_over_ranks(torch.cat([tags.sum(dim=0), images[None]]).float()))
        ratio = self._ratio()
        crosses = (self.crossed == NEVER) & (ratio < GUESS_FRACTION)
        self.crossed.copy_(torch.where(crosses, step, self.crossed))
        self._send(step)
        return {RATIO: ratio}

    def _ratio(self) -> Tensor:
        """Return the average loss over that of guessing every tag by its frequency: a scalar."""
        frequency = (self.tags[:-1] / self.tags[-1]).clamp(1e-6, 1 - 1e-6)
        guessing = -torch.xlogy(frequency, frequency) - torch.xlogy(1 - frequency, 1 - frequency)
        return self.loss[0] / self.loss[1] / guessing.mean()

    def _send(self, step: int) -> None:
        """Start copying `crossed` to the host; `is_over` reads it `LAG` steps later."""
        if self.crossed.device.type != "cuda":
            self._copies.append(_Copy(step, self.crossed.clone().cpu(), None))
            return
        value = torch.empty((), dtype=self.crossed.dtype, pin_memory=True)
        value.copy_(self.crossed, non_blocking=True)
        arrival = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch
        arrival.record()
        self._copies.append(_Copy(step, value, arrival))

    def _set_end(self, crossed: int) -> None:
        """Set the end from the step whose loss decided, or the latest one if there is none."""
        decided = self.latest if crossed == NEVER else crossed + LAG
        self._end = min(max(self.shortest, decided), self.latest)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Also read the end where the state decides it."""
        super()._load_from_state_dict(state_dict, prefix, *args)
        self._copies.clear()
        if f"{prefix}crossed" in state_dict:
            self._set_end(int(state_dict[f"{prefix}crossed"]))
