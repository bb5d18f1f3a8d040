from importlib.metadata import version

from tag2mask.version import __version__


def test_version_is_that_of_the_installed_package():
    assert __version__ == version("tag2mask")
