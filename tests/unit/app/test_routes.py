"""The page over HTTP, as a browser asks for it."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image as PILImage
from tests.unit.app.test_uploads import picture

from tag2mask.app.run_lengths import encode_runs

testclient = pytest.importorskip("starlette.testclient")
from tag2mask.app.routes import STATIC, build_app, encode_jpeg  # noqa: E402 -- needs the extra

OWN = {"X-Tag2mask": "1"}


@pytest.fixture
def client(workspace):
    with testclient.TestClient(build_app(workspace), "http://127.0.0.1", headers=OWN) as opened:
        yield opened


def image_ids(client):
    return {one["name"]: one["id"] for one in client.get("/api/images").json()["images"]}


def test_the_page_and_its_files_are_served(client):
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    for path in STATIC.iterdir():
        assert client.get(f"/static/{path.name}").content == path.read_bytes()


def test_the_page_loads_nothing_from_elsewhere():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text, path
        assert "https:" not in text, path


@pytest.mark.parametrize(
    "path", ["/static/../routes.py", "/static/%2e%2e/routes.py", "/etc/passwd"]
)
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


def test_an_image_is_shown_with_its_mask(client, data):
    name = image_ids(client)["lane2/a"]
    shown = PILImage.open(io.BytesIO(client.get(f"/api/images/{name}/picture").content))
    true = PILImage.open(data / "images" / "lane2" / "a.png")
    assert shown.size == true.size == (63, 45)
    assert np.abs(np.asarray(shown, int) - np.asarray(true, int)).mean() < 12
    made = client.post(f"/api/images/{name}/mask", json={"tags": ["dog"]}).json()
    assert (made["width"], made["height"]) == (63, 45)
    assert sum(made["runs"][1::2]) == 63 * 45


def test_an_upload_is_masked_and_removed(client):
    answer = client.post("/api/images?name=my%20cow.png", content=picture((40, 30)))
    assert answer.status_code == 201
    identifier = answer.json()["id"]
    assert client.post(f"/api/images/{identifier}/mask", json={}).status_code == 200
    thumbnail = client.get(f"/api/images/{identifier}/thumbnail")
    assert thumbnail.headers["content-type"] == "image/jpeg"
    assert client.delete(f"/api/images/{identifier}").status_code == 204
    assert client.get(f"/api/images/{identifier}/picture").status_code == 404


def test_visitors_do_not_see_each_others_uploads(client, workspace):
    identifier = client.post("/api/images?name=a.png", content=picture()).json()["id"]
    other = testclient.TestClient(client.app, "http://127.0.0.1", headers=OWN)
    for path in ("picture", "saved"):
        assert other.get(f"/api/images/{identifier}/{path}").status_code == 404
    assert identifier not in image_ids(other).values()
    assert identifier in image_ids(client).values()


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("POST", "/api/images?name=x.png", b"no image", 400, "not an image"),
        ("POST", "/api/images?name=x.png", picture((2000, 1000)), 413, "too large"),
        ("POST", "/api/images/0/mask", b'{"tags": ["dgo"]}', 400, "Did you mean 'dog'"),
        ("POST", "/api/images/0/mask", b'{"refiner": "x"}', 400, "unknown refiner"),
        ("POST", "/api/images/0/mask", b"{", 400, "request"),
        ("POST", "/api/images/99/mask", b"{}", 404, "no image '99'"),
        ("PUT", "/api/images/0/saved", b'{"runs": [0, 5]}', 400, "5 pixels"),
        ("POST", "/api/downloads", b'{"format": "x", "images": ["0"]}', 400, "unknown format"),
        ("GET", "/api/downloads/x", None, 404, "no longer"),
    ],
)
def test_a_mistake_is_one_line(client, method, path, body, status, reason):
    answer = client.request(method, path, content=body)
    assert answer.status_code == status
    assert reason in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


def test_a_body_is_not_read_past_its_limit(client, workspace):
    read = 0

    def endless():
        nonlocal read
        while read < 100 * workspace.limits.upload_bytes:
            read += 65_536
            yield b"\0" * 65_536

    answer = client.post("/api/images?name=a.png", content=endless())
    assert answer.status_code == 413


def test_saving_asks_before_it_replaces(client):
    mask = np.zeros((45, 63), dtype=np.uint8)
    saved = client.put("/api/images/0/saved", json={"runs": encode_runs(mask)})
    assert saved.status_code == 200
    mask[0, 0] = 1
    again = {"runs": encode_runs(mask), "replaces": None}
    assert client.put("/api/images/0/saved", json=again).status_code == 409
    again["replaces"] = saved.json()["version"]
    assert client.put("/api/images/0/saved", json=again).status_code == 200
    assert client.get("/api/images/0/saved").json()["runs"] == again["runs"]


def test_a_download_is_a_file(client):
    started = client.post("/api/downloads", json={"format": "voc_png", "images": ["0", "1"]})
    assert started.status_code == 202
    path = f"/api/downloads/{started.json()['id']}"
    deadline = time.monotonic() + 60
    while not client.get(path).json()["ready"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    answer = client.get(f"{path}/file")
    assert answer.content[:2] == b"PK"
    assert "masks_voc_png.zip" in answer.headers["content-disposition"]


def test_quick_requests_of_four_visitors_all_get_their_mask(client, workspace):
    answers = []

    def visit(number):
        own = testclient.TestClient(client.app, "http://127.0.0.1", headers=OWN)
        for turn in range(12):
            level = {"background": 0.1 + 0.05 * turn, "refiner": "none"}
            path = f"/api/images/{(number + turn) % 4}/mask"
            answers.append(own.post(path, json=level).status_code)

    threads = [threading.Thread(target=visit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 48
    assert workspace.maker.network_runs <= 8  # 4 images, and 4 for their ranking


def test_a_password_closes_the_page(workspace):
    with testclient.TestClient(build_app(workspace, auth="a:b"), "http://localhost") as client:
        assert client.get("/").status_code == 401
        assert client.get("/", auth=("a", "b")).status_code == 200


def test_a_small_picture_keeps_its_shape():
    image = np.zeros((90, 300, 3), dtype=np.uint8)
    assert PILImage.open(io.BytesIO(encode_jpeg(image, 100))).size == (100, 30)
    assert PILImage.open(io.BytesIO(encode_jpeg(image, None))).size == (300, 90)
