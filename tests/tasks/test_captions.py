import pytest

from dlx.tasks.captions import named_classes

TEXTS = ["a small red circle above a blue square", "A Blue square", "a tree"]


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        (("blue", "red"), [1, 0, -1]),
        (("circle", "square"), [0, 1, -1]),
        (("red circle", "blue square", "blue"), [0, 1, -1]),
        (("re", "squar", "tree"), [-1, -1, 2]),
        (("a+b", "tree"), [-1, -1, 1]),
    ],
)
def test_the_class_that_a_text_names_first(classes, expected):
    assert named_classes(TEXTS, classes).tolist() == expected
