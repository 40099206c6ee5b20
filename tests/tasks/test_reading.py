"""Rows of numbers from files: no row vanishes unsaid, and what is no finite number is named with its line."""

import warnings

import numpy as np
import pytest

from dlx.config.errors import UserError
from dlx.tasks.reading import read_rows


def write(path, text):
    path.write_bytes(text.encode("utf-8-sig"))
    return path


def test_a_line_of_names_is_not_data_and_is_said_where_it_is_not_known(tmp_path):
    path = write(tmp_path / "a.csv", "x,y\r\n\r\n1,2\r\n3,4\r\n")
    with pytest.warns(UserWarning, match=r"a\.csv: line 1 \(x, y\) is taken for the names of the columns"):
        assert read_rows(path, 2).tolist() == [[1, 2], [3, 4]]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_rows(path, 2, ("x", "y")).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(UserError, match=r"line 1: the columns are x, y; they must be y, x"):
        read_rows(path, 2, ("y", "x"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1,2\na,b\n", "line 2: 'a' is no number"),
        (",\n1,2\n\n\n3,x\n", "line 5: 'x' is no number"),
        ("a,2\n1,2\n", "line 1: 'a' is no number"),
        ("a,\n1,2\n", "line 1: 'a' is no number"),
        ("1,2\n3\n", "line 2: 1 numbers, the lines before have 2"),
        ("1,nan\n", "line 1: nan is not finite"),
        ("1,2\n1,-inf\n", "line 2: -inf is not finite"),
        ("1+2j,2\n", r"line 1: '1\+2j' is no number"),
        ("x,y\n", "holds no rows"),
        ("1\n2\n", "must have 2 numbers per row"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is taken for the names")
def test_what_is_no_row_is_named_with_the_line_of_the_file(tmp_path, text, words):
    with pytest.raises(UserError, match=words):
        read_rows(write(tmp_path / "a.csv", text), 2)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.array([["a", "b"]]), "not real numbers"),
        (np.array([[1j, 2]]), "not real numbers"),
        (np.array([[1, 2], [3, np.nan]]), "row 2: nan is not finite"),
        (np.array([[1, 2], [np.inf, 3]]), "row 2: inf is not finite"),
        (np.array([[{}, {}]], object), "allow_pickle"),
        (np.zeros((2, 3)), "must have 2 numbers per row"),
        (np.zeros((1, 2, 2)), "must have 2 numbers per row"),
    ],
)
def test_arrays_that_are_no_rows_are_one_line(tmp_path, rows, words):
    np.save(tmp_path / "a.npy", rows)
    with pytest.raises(UserError, match=words) as error:
        read_rows(tmp_path / "a.npy", 2)
    assert len(str(error.value).splitlines()) == 1


def test_an_archive_of_arrays_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"give one of them as \.npy"):
        read_rows(tmp_path / "a.npz", 2)


def test_lists_are_one_row_or_rows_of_one_number(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    assert read_rows(tmp_path / "a.npy", 3).tolist() == [[0, 1, 2]]
    assert read_rows(tmp_path / "a.npy", 1).tolist() == [[0], [1], [2]]
