import sys

import numpy as np
import pytest
from tests.unit.data.voc_set import SBD_TRAIN, SBD_VAL, sbd_mask, write_list, write_mat

from tag2mask.data.sbd import read_sbd_lists, read_sbd_mask, sbd_root
from tag2mask.errors import DataError, MissingExtraError


def test_a_class_mask_is_read_from_its_matlab_structure(tmp_path):
    pytest.importorskip("scipy.io")
    path = tmp_path / "2008_000008.mat"
    write_mat(path, sbd_mask())
    assert path.read_bytes().startswith(b"MATLAB 5.0 MAT-file")
    found = read_sbd_mask(path)
    assert (found.dtype, found.flags["C_CONTIGUOUS"]) == (np.uint8, True)
    np.testing.assert_array_equal(found, sbd_mask())


def test_a_single_row_stays_a_mask(tmp_path):
    pytest.importorskip("scipy.io")
    write_mat(tmp_path / "a.mat", np.array([[0, 3, 3]], dtype=np.uint8))
    np.testing.assert_array_equal(read_sbd_mask(tmp_path / "a.mat"), [[0, 3, 3]])


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-40])


def _empty(path):
    path.write_bytes(b"")


def _other_text(path):
    path.write_text("not a MATLAB file, but long enough to have a header " * 10)


def _other_variable(path):
    from scipy.io import savemat

    savemat(path, {"GTinst": {"Segmentation": sbd_mask()}})


def _no_structure(path):
    from scipy.io import savemat

    savemat(path, {"GTcls": sbd_mask()})


def _fractions(path):
    write_mat(path, sbd_mask() / 3)


def _class_21(path):
    write_mat(path, np.full((4, 6), 21, dtype=np.uint8))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "cannot be read as a class mask of SBD"),
        (_empty, "cannot be read as a class mask of SBD"),
        (_other_text, "cannot be read as a class mask of SBD"),
        (_other_variable, "cannot be read as a class mask of SBD"),
        (_no_structure, "cannot be read as a class mask of SBD"),
        (_fractions, r"must be a matrix of whole numbers, got float64 with 2 axes"),
        (_class_21, "pixel values 21 to 21; classes are 1 to 20"),
    ],
)
def test_an_unusable_file_is_named_in_one_line(tmp_path, damage, words):
    pytest.importorskip("scipy.io")
    path = tmp_path / "2008_000008.mat"
    write_mat(path, sbd_mask())
    damage(path)
    with pytest.raises(DataError, match=words) as problem:
        read_sbd_mask(path)
    assert str(problem.value).startswith(str(path))
    assert "\n" not in str(problem.value)


def test_a_missing_file_and_missing_scipy_are_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'tag2mask\[voc\]'"):
        read_sbd_mask(tmp_path / "gone.mat")


def test_the_root_may_be_the_archive_or_a_folder_inside(tmp_path):
    folder = tmp_path / "benchmark_RELEASE" / "dataset"
    (folder / "cls").mkdir(parents=True)
    for root in (tmp_path, folder.parent, folder):
        assert sbd_root(root) == folder
    with pytest.raises(DataError, match=r"no folder dataset/cls; unpack http.*benchmark\.tgz"):
        sbd_root(folder / "cls")


def test_both_lists_are_read_and_a_missing_one_is_named(tmp_path):
    write_list(tmp_path / "train.txt", SBD_TRAIN)
    with pytest.raises(DataError, match=r"val\.txt: cannot be read"):
        read_sbd_lists(tmp_path)
    write_list(tmp_path / "val.txt", SBD_VAL)
    assert read_sbd_lists(tmp_path) == {"train": SBD_TRAIN, "val": SBD_VAL}
    write_list(tmp_path / "val.txt", ())
    with pytest.raises(DataError, match=r"val\.txt: the list is empty"):
        read_sbd_lists(tmp_path)
