import time

import pytest


def test_every_image_gets_its_uncertainty_in_the_background(workspace, segmenter, data):
    assert not workspace.ranking.is_done
    workspace.ranking.start()
    deadline = time.monotonic() + 60
    while not workspace.ranking.is_done and time.monotonic() < deadline:
        time.sleep(0.01)
    listed = workspace.list_images("anna")
    assert listed["ranking"] is False
    values = [image["uncertainty"] for image in listed["images"]]
    assert values == sorted(values, reverse=True)
    found = {image["name"]: image["uncertainty"] for image in listed["images"]}
    expected = segmenter.label(data / "images" / "lane1" / "b.png", "cow").uncertainty.total
    assert found["lane1/b"] == pytest.approx(expected)


def test_an_unreadable_image_does_not_stop_the_others(workspace, data):
    (data / "images" / "none.png").write_bytes(b"no image")
    workspace.ranking.start()
    workspace.ranking._thread.join(timeout=60)
    assert workspace.ranking.unreadable == 1
    assert workspace.ranking.is_done
    assert workspace.catalog.ranked == 3


def test_closing_stops_the_ranking(workspace):
    workspace.ranking.start()
    workspace.ranking.close()
    assert not workspace.ranking._thread.is_alive()
