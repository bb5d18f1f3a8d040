import pytest

from tag2mask.app.refusals import MaskExistsError, NotFoundError, RefusedError, TooLargeError
from tag2mask.errors import Tag2MaskError


@pytest.mark.parametrize(
    ("kind", "status"),
    [(RefusedError, 400), (NotFoundError, 404), (MaskExistsError, 409), (TooLargeError, 413)],
)
def test_each_refusal_is_a_mistake_of_the_user_with_its_http_status(kind, status):
    assert issubclass(kind, Tag2MaskError)
    assert kind.status == status
