import json
import math
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dlx.runs import columns
from dlx.runs.columns import Columns, Curve
from dlx.runs.curves import band, decimate, smooth
from dlx.runs.files import decode_nonfinite
from dlx.runs.folder import RunFolder
from dlx.runs.metrics import POSITION, MetricsWriter, read_metrics

NAMES = ["train/loss", "val/loss", "lr", "odd name\n<b>"]
numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-(2**70), 2**70), st.booleans(),
    st.sampled_from(["NaN", "Infinity", "-Infinity"]),
)  # fmt: skip
rows = st.fixed_dictionaries(
    {"step": st.integers(0, 20), "time": st.floats(0, 2e9)},
    optional={
        "epoch": st.floats(0, 9),
        **dict.fromkeys(NAMES, st.one_of(numbers, st.none(), st.just("text"), st.just([1]))),
    },
)
GARBAGE = [
    "",
    "{",
    '{"step": 3, "lr": NaN}',
    '{"lr": 1}',
    "[1, 2]",
    '{"lr": 1},{"lr": 2}',
    '{"step": 1, "lr"',
    "1e999",
    "é\\",
]
lines = st.one_of(
    rows.map(json.dumps), rows.map(json.dumps), rows.map(json.dumps),
    st.integers(0, 20).map(lambda step: json.dumps({"_event": "resume", "step": step})),
    st.sampled_from(GARBAGE),
)  # fmt: skip


def expected(path, name, axis="step"):
    """By the reader that keeps every row."""
    path.with_name("whole").write_bytes(path.read_bytes()[: path.read_bytes().rfind(b"\n") + 1])
    found = [decode_nonfinite(row) for row in read_metrics(path.with_name("whole"))]
    times = [row["time"] for row in found if "time" in row]
    key, first = ("time", times[0] if times else 0) if axis == "relative" else (axis, 0)
    pairs = [
        (row[key] - first, float(row[name])) for row in found if key in row and isinstance(row.get(name), (int, float))
    ]
    return np.array(pairs).reshape(-1, 2).T


def check(path, read: Columns) -> None:
    for name in NAMES:
        for axis in ("step", "epoch", "relative"):
            curve = read.curve(name, axis)
            np.testing.assert_array_equal(np.array([curve.x, curve.y]), expected(path, name, axis), err_msg=name)


@settings(max_examples=150, deadline=None)
@given(st.lists(lines, max_size=25), st.lists(st.integers(0, 2000), max_size=4), st.booleans())
def test_columns_are_what_the_rows_say_however_the_file_grows(tmp_path_factory, texts, cuts, ends):
    path = tmp_path_factory.mktemp("run") / "metrics.jsonl"
    data = "\n".join(texts).encode() + (b"\n" if ends else b"")
    read = Columns(path)
    assert not read.refresh()
    bounds = [*sorted(min(cut, len(data)) for cut in cuts), len(data)]
    begin = 0
    for end in bounds:
        with path.open("ab") as file:
            file.write(data[begin:end])
        begin = end
        read.refresh()
        check(path, read)
    assert not read.refresh()


def test_it_reads_in_pieces_and_a_row_may_be_longer_than_one(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "CHUNK", 100)
    path = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "lr": step / 7, "text": "x" * (step % 5 * 60)} for step in range(50)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = Columns(path)
    assert read.refresh()
    np.testing.assert_array_equal(read.curve("lr").y, [row["lr"] for row in rows])


@pytest.mark.parametrize("how", ["replaced", "cut", "written over"])
def test_a_file_that_is_another_is_read_anew(tmp_path, how):
    path = tmp_path / "metrics.jsonl"
    old = "".join(json.dumps({"step": step, "lr": 1.0}) + "\n" for step in range(30))
    new = "".join(json.dumps({"step": step, "val/loss": 2.0}) + "\n" for step in range(3 if how == "cut" else 60))
    path.write_text(old)
    read = Columns(path)
    read.refresh()
    assert read.names == ["lr"]
    if how == "replaced":
        (tmp_path / "beside").write_text(new)
        (tmp_path / "beside").replace(path)
    else:
        path.write_text(new)
    assert read.refresh()
    assert read.names == ["val/loss"]
    check(path, read)
    path.unlink()
    assert read.refresh()
    assert read.names == []
    assert not read.refresh()


def test_a_resume_drops_what_comes_after_its_step_and_a_torn_row_waits(tmp_path):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path)
    for step in range(5):
        writer.write({"step": step, "train/loss": float(step)} | ({"late": 1.0} if step == 4 else {}))
    read = Columns(path)
    read.refresh()
    assert read.names == ["train/loss", "late"]
    writer.write({"_event": "resume", "step": 2})
    writer.write({"step": 3, "train/loss": math.nan})
    writer.close()
    with path.open("a") as file:
        file.write('{"step": 4, "train/lo')
    read.refresh()
    np.testing.assert_array_equal(read.curve("train/loss").x, [0, 1, 2, 3])
    np.testing.assert_array_equal(read.curve("train/loss").y, [0, 1, 2, math.nan])
    assert read.names == ["train/loss"]
    with path.open("a") as file:
        file.write('ss": 9}\n')
    assert read.refresh()
    np.testing.assert_array_equal(read.curve("train/loss").y, [0, 1, 2, math.nan, 9])


def test_the_rows_of_a_training(dlx_call, tiny, only_run):
    assert dlx_call("train", *tiny).code == 0
    read = Columns(RunFolder(only_run()).metrics_path)
    assert read.refresh()
    assert {"train/loss", "val/accuracy"} <= set(read.names)
    assert not set(read.names) & set(POSITION)
    for name in read.names:
        for axis in ("step", "epoch", "time", "relative"):
            curve = read.curve(name, axis)
            np.testing.assert_array_equal([curve.x, curve.y], expected(read.path, name, axis))
    assert not len(read.curve("no such figure").x)
    with pytest.raises(ValueError, match="axis"):
        read.curve("train/loss", "steps")


def test_restored_columns_go_on_where_they_were(tmp_path):
    path = tmp_path / "metrics.jsonl"
    row = '{"step": %d, "time": 1.5, "lr": 0.5}\n'
    path.write_text(row % 1 + row % 2)
    first = Columns(path)
    first.refresh()
    state = {"inode": path.stat().st_ino, "offset": first.offset, "tail": first.tail}
    second = Columns(path)
    second.restore(first.arrays(), **state)
    assert not second.refresh()
    check(path, second)
    third = Columns(path)
    third.restore(first.arrays(), **state | {"inode": state["inode"] + 1})
    assert third.refresh()
    check(path, third)
    with path.open("a") as file:
        file.write(row % 3)
    assert second.refresh()
    assert second.offset == os.path.getsize(path)  # noqa: PTH202
    check(path, second)


values = st.lists(st.floats(width=32), min_size=1, max_size=300)


@settings(max_examples=200, deadline=None)
@given(values, st.integers(1, 60))
def test_fewer_points_keep_the_ends_every_spike_and_the_gaps(y, points):
    curve = Curve(np.arange(len(y), dtype=float), np.array(y))
    few = decimate(curve, points)
    assert len(few.x) <= max(points, 5)
    assert set(few.x) <= set(curve.x)
    assert (np.diff(few.x) > 0).all()
    np.testing.assert_array_equal(few.y, curve.y[few.x.astype(int)])
    assert few.x[0] == 0
    assert few.x[-1] == len(y) - 1
    finite = curve.y[np.isfinite(curve.y)]
    if len(finite):
        kept = few.y[np.isfinite(few.y)]
        assert kept.max() == finite.max()
        assert kept.min() == finite.min()
    assert np.isfinite(few.y).all() == np.isfinite(curve.y).all()


def test_a_spike_and_a_gap_stay_where_they_are():
    y = np.sin(np.arange(10_000) / 50)
    y[4321], y[7000:7100] = 50, np.nan
    few = decimate(Curve(np.arange(10_000.0), y), 1000)
    assert few.x[np.nanargmax(few.y)] == 4321
    gap = few.x[np.isnan(few.y)]
    assert len(gap) >= 3
    assert gap.min() >= 7000
    assert gap.max() < 7100


def plain_average(curve, weight):
    """As its definition says."""
    typical = np.median(np.diff(curve.x)[np.diff(curve.x) > 0]) if len(np.unique(curve.x)) > 1 else 1
    result = []
    for i, (x, y) in enumerate(zip(curve.x, curve.y, strict=True)):
        shares = weight ** ((x - curve.x[: i + 1]) / typical)
        real = np.isfinite(curve.y[: i + 1])
        result.append((shares[real] * curve.y[: i + 1][real]).sum() / shares[real].sum() if np.isfinite(y) else y)
    return result


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 400), st.floats(-100, 100) | st.sampled_from([math.nan, math.inf])),
        min_size=1,
        max_size=60,
    ),
    st.floats(0.01, 0.999),
)
def test_smoothing_is_a_debiased_average_that_knows_gaps(points, weight):
    gaps, y = (np.array(part, dtype=float) for part in zip(*points, strict=True))
    curve = Curve(np.cumsum(gaps), y)
    np.testing.assert_allclose(smooth(curve, weight).y, plain_average(curve, weight), rtol=1e-7, atol=1e-7)


def test_smoothing_of_long_curves_is_exact_for_constants_and_forgets_over_gaps():
    x = np.arange(100_000.0)
    for weight in (1e-9, 0.5, 0.99):
        np.testing.assert_allclose(smooth(Curve(x, np.full(len(x), 3.0)), weight).y, 3.0, rtol=1e-12)
    jump = Curve(np.array([0.0, 1, 2, 1e6]), np.array([5.0, 5, 5, 1]))
    assert smooth(jump, 0.9).y[-1] == 1
    assert smooth(jump, 0.0) is jump
    with pytest.raises(ValueError, match="weight"):
        smooth(jump, 1.0)


def test_a_band_is_over_the_union_and_counts_who_is_there():
    whole = band([Curve(np.array([0.0, 2, 4]), np.array([0.0, 2, 4])), Curve(np.array([1.0, 2]), np.array([3.0, 4]))])
    np.testing.assert_array_equal(whole.x, [0, 1, 2, 4])
    np.testing.assert_array_equal(whole.count, [1, 2, 2, 1])
    np.testing.assert_array_equal(whole.mean, [0, 2, 3, 4])
    np.testing.assert_allclose(whole.std, [0, math.sqrt(2), math.sqrt(2), 0])


def test_a_band_has_gaps_where_all_have_and_averages_equal_positions():
    gap = Curve(np.arange(4.0), np.array([1, math.nan, math.inf, 1]))
    found = band([gap])
    np.testing.assert_array_equal(found.count, [1, 0, 0, 1])
    assert np.isnan(found.mean[1:3]).all()
    assert np.isnan(found.std[1:3]).all()
    epochs = band([Curve(np.array([1.0, 1, 2]), np.array([0.0, 4, 8]))])
    np.testing.assert_array_equal(epochs.mean, [2, 8])
    assert len(band([]).x) == len(band([Curve(np.empty(0), np.empty(0))]).x) == 0
    many = band([Curve(np.arange(10_000.0), np.ones(10_000))] * 3, points=100)
    assert len(many.x) == 100
    assert (many.x[0], many.x[-1]) == (0, 9999)
