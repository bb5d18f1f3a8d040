"""What browsers send as JSON, checked by a schema."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tag2mask.app.refusals import RefusedError

Message = TypeVar("Message", bound=BaseModel)


class MaskSettings(BaseModel):
    """How the mask of an image is made; None keeps the setting of the run."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    tags: tuple[str, ...] | None = Field(default=None, strict=False)
    """Classes of the image; None lets the classifier select them."""
    background: float | None = Field(default=None, ge=0, le=1)
    """Background score beside the CAM. Larger: smaller objects."""
    class_threshold: float | None = Field(default=None, ge=0, le=1)
    """Class probability above which the classifier selects a class."""
    refiner: str | None = Field(default=None, max_length=100)
    """Name of a refiner, or `none`."""


class SaveRequest(BaseModel):
    """A corrected mask."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    runs: list[int]
    """See `run_lengths`."""
    replaces: str | None = None
    """Version of the saved mask that the person saw; None: there was none."""
    confirmed: bool = False
    """Whether the person agreed to replace a mask that this page did not write."""


class DownloadRequest(BaseModel):
    """Masks to export."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format: str = Field(max_length=100)
    """Name of an export format."""
    images: list[str]
    """Identifiers of images."""
    settings: MaskSettings = MaskSettings()
    """How masks are made that nobody corrected; its tags do not count."""
    tags: dict[str, tuple[str, ...]] = Field(default_factory=dict, strict=False)
    """Identifier -> tags that the person gave the image."""


def parse(kind: type[Message], body: bytes) -> Message:
    """Read a message.

    Raises:
        RefusedError: If it does not fit the schema.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "request"
        raise RefusedError(f"{where}: {first['msg'].lower()}") from error
