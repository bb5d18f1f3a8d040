from pathlib import Path

import pytest
from tests.unit.app.test_uploads import picture

from tag2mask.app.catalog import Catalog
from tag2mask.app.image_folder import FolderImage
from tag2mask.app.limits import Limits
from tag2mask.app.refusals import NotFoundError
from tag2mask.app.uploads import Uploads

IMAGES = [
    FolderImage(name, Path(f"{name}.png"), (), uncertainty)
    for name, uncertainty in [("a", 0.2), ("b", None), ("c", 0.9), ("d", None)]
]


@pytest.fixture
def catalog():
    made = Catalog(IMAGES, Uploads(Limits()))
    yield made
    made.uploads.close()


def test_the_most_uncertain_comes_first_and_the_unknown_last(catalog):
    assert [image.name for image in catalog.listed("anna")] == ["c", "a", "b", "d"]
    assert [image.name for image in catalog.unranked()] == ["b", "d"]
    catalog.set_uncertainty(catalog.find("anna", "3"), 1.0)
    assert [image.name for image in catalog.listed("anna")] == ["d", "c", "a", "b"]
    assert catalog.ranked == 3


def test_uploads_come_before_the_folder_for_their_visitor_alone(catalog):
    upload = catalog.uploads.add("anna", "x.png", picture())
    assert next(image.name for image in catalog.listed("anna")) == "x"
    assert catalog.find("anna", upload.identifier).upload is upload
    assert len(catalog.listed("ben")) == 4
    with pytest.raises(NotFoundError):
        catalog.find("ben", upload.identifier)


@pytest.mark.parametrize(
    "identifier",
    ["4", "-1", "", "a", "../a", "/etc/passwd", "1.0", "²", "9" * 400, "u", "u../x", "0x1", " 1"],
)
def test_only_identifiers_of_the_server_find_an_image(catalog, identifier):
    with pytest.raises(NotFoundError):
        catalog.find("anna", identifier)


def test_an_index_finds_its_image(catalog):
    assert catalog.find("anna", "2").path == Path("c.png")
    assert catalog.uncertainty(catalog.find("anna", "2")) == 0.9
