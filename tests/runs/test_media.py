"""Media: the file of each kind, its name, and what is read back of it."""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dlx.runs.media import (
    COLORS,
    KINDS,
    MAX_POINTS,
    Animation,
    Curve,
    Overlay,
    Table,
    Text,
    encode,
    enlarged,
    files_in,
    grid,
    kind_of,
    numeric_columns,
    read_curve,
    read_table,
    read_text,
    split_name,
)


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def pixels_of(medium) -> np.ndarray:
    suffix, content = encode(medium)
    assert suffix == ".png"
    return np.asarray(opened(content))


# Encoding


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pixels_are_enlarged_by_a_whole_factor(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 10, channels), dtype=np.uint8)
    found = pixels_of(pixels)
    factor = 26  # 256 / 10, rounded
    assert found.shape[:2] == (8 * factor, 10 * factor)
    expected = pixels.repeat(factor, 0).repeat(factor, 1)
    np.testing.assert_array_equal(found, expected[..., 0] if channels == 1 else expected)
    assert enlarged(np.zeros((300, 20, 3), np.uint8)).size == (20, 300)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((8, 8, 3)), np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8),
        np.zeros((2, 8, 8, 3), np.uint8), "text", None,
    ],
)  # fmt: skip
def test_what_is_no_medium_is_refused(wrong):
    with pytest.raises(TypeError, match="no medium"):
        encode(wrong)


def test_a_figure_is_a_picture():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1])
    assert pixels_of(figure).shape[:2] == (120, 240)


def test_an_animation_keeps_its_frames_and_their_time():
    frames = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 100, 200)])
    suffix, content = encode(Animation(frames, seconds=0.5))
    image = opened(content)
    assert (suffix, image.format, image.n_frames, image.size) == (".gif", "GIF", 3, (256, 256))
    for number, level in enumerate((0, 100, 200)):
        image.seek(number)
        assert image.info["duration"] == 500
        assert abs(int(np.asarray(image.convert("RGB")).mean()) - level) <= 2
    assert image.info["loop"] == 0


def test_texts_curves_and_tables_come_back():
    assert encode(Text("é\n")) == (".txt", "é\n".encode())
    curve = Curve({"a": ([0, 0.5, 1], [0, math.nan, math.inf]), "b": ([1], [2])}, "fpr", "tpr", "ROC")
    suffix, content = encode(curve)
    assert suffix == ".curve.json"
    json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON"))
    found = read_curve(content)
    assert (found.x, found.y, found.title, list(found.lines)) == ("fpr", "tpr", "ROC", ["a", "b"])
    np.testing.assert_array_equal(found.lines["a"], curve.lines["a"])
    table = Table(["class", "ap", "n"], [["cat", 0.5, 3], ["NaN", math.nan, 4], [None, -math.inf, None]])
    suffix, content = encode(table)
    assert suffix == ".table.json"
    json.loads(content, parse_constant=lambda name: pytest.fail(f"{name} is no strict JSON"))
    found = read_table(content)
    assert found.columns == table.columns
    assert [row[0] for row in found.rows] == ["cat", "NaN", None], "a text stays one among texts"
    np.testing.assert_array_equal([row[1] for row in found.rows], [0.5, math.nan, -math.inf])
    assert numeric_columns(found) == [1, 2]


def test_an_overlay_draws_its_boxes_and_their_texts():
    photo = np.full((64, 64, 3), 128, np.uint8)
    found = pixels_of(Overlay(photo, [(10, 20, 30, 50), (40, 5, 60, 15), (50, 60, 45, 55)], ["cat 0.9", "dog"]))
    factor = 4
    assert found.shape == (256, 256, 3)
    for x, y, color in (
        (10, 35, COLORS[0]), (30, 35, COLORS[0]), (20, 20, COLORS[0]), (20, 50, COLORS[0]),  # the sides of the first
        (40, 10, COLORS[1]), (60, 10, COLORS[1]),
    ):  # fmt: skip
        assert tuple(found[factor * y, factor * x]) == color
    assert tuple(found[factor * 45, factor * 20]) == (128, 128, 128), "its inside is the photo"
    above = found[factor * 20 - 12 : factor * 20 - 2, factor * 10 : factor * 10 + 30]
    assert (above == COLORS[0]).all(-1).any(), "the text stands above its box"


def test_labels_hide_neither_each_other_nor_leave_the_picture():
    """Two boxes at one place: a label above, one below; at the border both inside the picture."""
    photo = np.full((256, 256, 3), 128, np.uint8)
    found = pixels_of(Overlay(photo, [(100, 100, 140, 140)] * 2, ["cat", "dog"], kinds=[0, 3]))
    assert (found[88:98, 100:130] == COLORS[0]).all(-1).any()
    assert (found[143:153, 100:130] == COLORS[3]).all(-1).any()
    found = pixels_of(Overlay(photo, [(250, 2, 255, 20)], ["a long name"], kinds=[1]))
    label = (found[22:34] == COLORS[1]).all(-1)
    assert label.any(0).sum() > 50, "the whole name is there"


def test_a_caption_stands_above_the_photo():
    photo = np.full((256, 256, 3), 128, np.uint8)
    found = pixels_of(Overlay(photo, caption="detected"))
    assert found.shape == (270, 256, 3)
    assert (found[14:] == 128).all()
    assert (found[:14] == 255).any()
    assert (found[:14] < 100).any()


def test_pictures_of_several_sizes_are_one_grid():
    found = grid([np.zeros((4, 6, 3), np.uint8), np.zeros((6, 4, 3), np.uint8)], columns=2, gap=1)
    assert found.shape == (6, 13, 3)
    assert (found[4:, :6] == 255).all()
    assert (found[:, 7:11] == 0).all()


def test_an_overlay_lays_a_mask_over_the_photo_where_there_are_classes():
    photo = np.full((64, 64, 1), 200, np.uint8)
    mask = np.full((64, 64), -1)
    mask[:32] = 1
    found = pixels_of(Overlay(photo, mask=mask))
    mixed = np.array([200] * 3) + (np.array(COLORS[1]) - 200) * 140 / 255
    np.testing.assert_allclose(found[:128], np.broadcast_to(mixed, (128, 256, 3)), atol=1)
    assert (found[128:] == 200).all()


def test_a_grid_has_the_pictures_in_rows_with_white_between():
    pictures = np.stack([np.full((2, 3, 1), level, np.uint8) for level in range(5)])
    found = grid(pictures)
    assert found.shape == (2 * 2 + 1, 3 * 3 + 2, 1)
    for number in range(5):
        y, x = number // 3 * 3, number % 3 * 4
        assert (found[y : y + 2, x : x + 3] == number).all()
    assert (found[2] == 255).all()
    assert (found[:, 3] == 255).all()
    assert (found[3:, 8:] == 255).all(), "no picture there"
    assert grid(pictures, columns=5, gap=2).shape == (2, 5 * 3 + 4 * 2, 1)
    assert grid(pictures, columns=9).shape == (2, 5 * 3 + 4, 1)


# Names


@pytest.mark.parametrize(
    ("file", "kind", "name", "step"),
    [
        ("samples-00000012.png", "image", "samples", 12), ("samples.png", "image", "samples", None),
        ("a/b/film-00000000.gif", "animation", "film", 0), ("roc-12.curve.json", "curve", "roc-12", None),
        ("per-class-00000003.table.json", "table", "per-class", 3), ("x.y-00000001.txt", "text", "x.y", 1),
        ("late-123456789.txt", "text", "late", 123456789), ("-00000001.png", "image", "-00000001", None),
        ("a-00000001-00000002.png", "image", "a-00000001", 2), ("two\nlines-00000001.txt", "text", "two\nlines", 1),
        ("photo.jpg", None, "photo.jpg", None), ("x.json", None, "x.json", None), ("x.PNG", None, "x.PNG", None),
        ("page.html", None, "page.html", None), ("x.svg", None, "x.svg", None), ("x.png.exe", None, "x.png.exe", None),
    ],
)  # fmt: skip
def test_a_name_says_kind_and_step(file, kind, name, step):
    for path in (file, Path(file)):
        assert (kind_of(path), *split_name(path)) == (kind, name, step)


def test_every_kind_has_a_suffix():
    media = [np.zeros((4, 4, 3), np.uint8), Animation(np.zeros((1, 4, 4, 3), np.uint8)), Text(""), Curve({}, "", "")]
    kinds = [KINDS[encode(medium)[0]] for medium in [*media, Table([], [])]]
    assert kinds == ["image", "animation", "text", "curve", "table"]


def test_the_media_of_a_folder(tmp_path):
    folder = tmp_path / "media"
    folder.mkdir()
    for name in ("b-00000002.png", "a-00000010.txt", "b.gif", ".b-00000003.png", "c.jpg", "d.json"):
        (folder / name).write_bytes(b"")
    (folder / "f.png").mkdir()
    (folder / "g.png").symlink_to(folder / "b.gif")
    os.mkfifo(folder / "h.txt")
    found = [(file.name, file.step, file.kind, file.path.name) for file in files_in(folder)]
    assert found == [
        ("a", 10, "text", "a-00000010.txt"), ("b", 2, "image", "b-00000002.png"), ("b", None, "animation", "b.gif"),
    ]  # fmt: skip
    (tmp_path / "link").symlink_to(folder)
    assert files_in(tmp_path / "link") == files_in(tmp_path / "none") == files_in(folder / "b.gif") == []


def test_a_file_whose_name_is_no_text_has_one(tmp_path):
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("")
    except OSError:
        pytest.skip("this file system has no such names")
    (file,) = files_in(tmp_path)
    assert file.name == "?"
    assert file.path.read_text() == ""


# Reading what may be damaged


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "damaged"), (b"\xff", "damaged"), (b"[]", "damaged"), (b"3", "damaged"), (b"[" * 100_000, "damaged"),
        (b'{"lines": 1' + b"0" * 5000 + b"}", "damaged"),
        (b"{}", "no lines"), (b'{"lines": []}', "no lines"),
        (b'{"lines": {"a": 1}}', "no x and y"), (b'{"lines": {"a": [[1]]}}', "no x and y"),
        (b'{"lines": {"a": [1, 2]}}', "no x and y"), (b'{"lines": {"a": [[1, 2], [1]]}}', "2 x and 1 y"),
        (b'{"lines": {"a": [["x"], [1]]}}', "no number"), (b'{"lines": {"a": [[true], [1]]}}', "no number"),
        (b'{"lines": {"a": [[{}], [1]]}}', "no number"), (b'{"lines": {"a": [[1' + b"0" * 400 + b"], [1]]}}", "no n"),
    ],
)  # fmt: skip
def test_a_damaged_curve_is_one_line(content, why):
    with pytest.raises(ValueError, match=why) as caught:
        read_curve(content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"{", "damaged"), (b"null", "damaged"), (b"{}", "no columns"), (b'{"columns": ["a"]}', "no rows"),
        (b'{"columns": "a", "rows": []}', "no columns"), (b'{"columns": ["a"], "rows": [[1], 2]}', "row 2"),
        (b'{"columns": ["a", "b"], "rows": [[1]]}', "row 1 does not have 2 cells"),
    ],
)  # fmt: skip
def test_a_damaged_table_is_one_line(content, why):
    with pytest.raises(ValueError, match=why) as caught:
        read_table(content)
    assert "\n" not in str(caught.value)


def test_odd_contents_are_text():
    content = rb'{"columns": ["a", 2, "\ud800"], "rows": [["\ud800", {"b": [1]}, true], [null, "x", 1e999]]}'
    found = read_table(content)
    assert found.columns == ["a", "2", "?"]
    assert found.rows == [["?", '{"b": [1]}', True], [None, "x", math.inf]]
    assert numeric_columns(found) == []
    curve = read_curve(rb'{"lines": {"\ud800": [[null], [1]]}, "x": 3, "title": "\udfff"}')
    assert (list(curve.lines), curve.x, curve.y, curve.title) == (["?"], "", "", "?")
    assert math.isnan(curve.lines["?"][0][0])
    assert read_table(b'{"columns": [], "rows": [[], []]}').rows == []


def test_long_lines_keep_their_ends_and_long_texts_say_what_is_left_out():
    n = 100_000
    x, y = read_curve(encode(Curve({"a": (list(range(n)), list(range(n)))}, "x", "y"))[1]).lines["a"]
    assert len(x) == MAX_POINTS
    assert (x[0], x[-1]) == (0, n - 1)
    assert list(x) == sorted(x)
    assert x == y
    assert read_text(b"abc", 3) == "abc"
    assert read_text(b"a\xff", 5002) == "a\ufffd\n… 5,000 more bytes are not shown"


def test_numbers_may_be_numpys_and_torchs():
    import torch

    curve = Curve({"roc": (np.linspace(0, 1, 3), torch.tensor([0.0, 0.5, 1.0]))}, "x", "y")
    assert json.loads(encode(curve)[1])["lines"] == {"roc": [[0.0, 0.5, 1.0], [0.0, 0.5, 1.0]]}
    table = Table(("a", "b"), [(np.float32(1.5), range(2)), (float("nan"), "x")])
    assert json.loads(encode(table)[1])["rows"] == [[1.5, [0, 1]], ["NaN", "x"]]
