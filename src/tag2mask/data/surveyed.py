"""What sources with files have in common: photos, tags and masks out of one survey."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tag2mask.data import base
from tag2mask.data.survey import Survey
from tag2mask.data.tags import choose_classes, refuse_empty_classes, tag_matrix
from tag2mask.errors import DataError
from tag2mask.types import Sample


class Surveyed(base.Source):  # by its module's name: it is no source that a recipe could name
    """A source that a survey of the disk is enough for; its constructor ends with `_hold`."""

    _survey: Survey

    def _hold(
        self,
        survey: Survey,
        class_names: tuple[str, ...],
        names: Iterable[str],
        *,
        learned: bool,
        strict: bool,
    ) -> None:
        """Keep some of the surveyed photos.

        Args:
            survey: Without faults.
            class_names: Foreground classes in the order of mask values.
            names: The photos of this part; those that cannot be read are left out.
            learned: Whether they are learned from, so that every class needs a photo.
            strict: Refuse unreadable photos instead.

        Raises:
            DataError: If a photo (`strict`) or a class without photo (`learned`) is refused.
        """
        self._survey = survey
        self.class_names = class_names
        self.names, self.skipped = survey.readable(names, strict=strict)
        self.tags = tag_matrix((survey.tags[name] for name in self.names), class_names)
        if learned:
            refuse_empty_classes(self.tags, class_names, survey.where)
        self.has_masks = survey.has_masks(self.names)

    def __getitem__(self, index: int) -> Sample:
        with_mask = self.has_masks and self.reads_masks
        return self._survey.sample(
            self.names[index], self.tags[index], self.class_names, with_mask=with_mask
        )


def choose_known_classes(
    chosen: Sequence[str], survey: Survey, training: Callable[[], Survey]
) -> tuple[str, ...]:
    """Choose among classes that the data names in an order of its own.

    Args:
        chosen: What the user wants; empty: every class that the photos to learn from show.
        survey: The photos at hand.
        training: Surveys the photos to learn from; called only where it decides.

    Raises:
        DataError: If a chosen class is unknown.
    """
    if chosen:
        return choose_classes(chosen, survey.mask_classes, survey.where)
    learned = training()
    shown = set(learned.shown)
    return choose_classes(
        (), [name for name in learned.mask_classes if name in shown], learned.where
    )


def existing_root(root: Path | None) -> Path:
    """Return the folder that `data.root` names.

    Raises:
        DataError: If it is not set or missing.
    """
    if root is None:
        raise DataError("data.root is not set: add --data.root DIR")
    root = root.expanduser()
    if not root.is_dir():
        raise DataError(f"{root}: no such folder (data.root)")
    return root
