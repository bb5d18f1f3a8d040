"""Why the page refuses a request; each is a line for the person and a status for the browser."""

from __future__ import annotations

from typing import ClassVar

from tag2mask.errors import Tag2MaskError


class RefusedError(Tag2MaskError):
    """A request that cannot be served; the page shows the message."""

    status: ClassVar[int] = 400


class NotFoundError(RefusedError):
    """There is no such image or download for this visitor."""

    status = 404


class TooLargeError(RefusedError):
    """An upload or request passes a limit."""

    status = 413


class MaskExistsError(RefusedError):
    """Saving would replace a mask that the visitor has not agreed to replace."""

    status = 409
