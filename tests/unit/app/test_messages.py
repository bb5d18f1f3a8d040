import pytest

from tag2mask.app.messages import DownloadRequest, MaskSettings, SaveRequest, parse
from tag2mask.app.refusals import RefusedError


def test_settings_keep_what_is_left_out():
    settings = parse(MaskSettings, b'{"background": 0.3, "tags": ["cat"]}')
    assert settings.background == 0.3
    assert settings.tags == ("cat",)
    assert settings.refiner is None


@pytest.mark.parametrize(
    ("kind", "body", "where"),
    [
        (MaskSettings, b'{"background": 1.5}', "background"),
        (MaskSettings, b'{"background": NaN}', "request|background"),
        (MaskSettings, b'{"class_threshold": "0.5"}', "class_threshold"),
        (MaskSettings, b'{"path": "/etc/passwd"}', "path"),
        (MaskSettings, b'{"tags": "cat"}', "tags"),
        (MaskSettings, b"[]", "request"),
        (MaskSettings, b"\xff", "request"),
        (SaveRequest, b'{"runs": [1.5, 2]}', "runs.0"),
        (SaveRequest, b'{"runs": [true, 2]}', "runs.0"),
        (SaveRequest, b"{}", "runs"),
        (DownloadRequest, b'{"format": "coco"}', "images"),
        (DownloadRequest, b'{"format": "coco", "images": [1]}', "images.0"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_the_field(kind, body, where):
    with pytest.raises(RefusedError, match=rf"^({where}): "):
        parse(kind, body)
