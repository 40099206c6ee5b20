import csv
import io
import json
import math
import statistics

import numpy as np
import pytest

from dlx.config.errors import UserError
from dlx.runs.catalog import Entry
from dlx.runs.compare import compare, curve_panels, select
from dlx.runs.config_diff import differing, short_names
from dlx.runs.folder import RunFolder
from dlx.runs.metric_info import goal_of, main_metric, metric_text, shown_metrics, spread_text, time_text
from dlx.runs.plot_text import plot_text
from dlx.runs.tables import as_csv, as_data, as_latex, as_markdown, columns_of, summary_rows


def entry(root, run, metrics=None, status="finished", monitor="val/accuracy:max", **config) -> Entry:
    found = {"model": "mlp", "optimizer": "adam", "seed": 0, "dataset.fold": None, "output_root": "a"}
    found |= {key.replace("__", "."): value for key, value in config.items()}
    return Entry(
        id=run, path=root / run, is_plan=False, plan=None, created=0.0, config=found, status=status,
        metrics=metrics or {}, monitor=monitor,
    )  # fmt: skip


@pytest.fixture
def seeds(tmp_path):
    """Two rates with three seeds each; the better one is the second."""
    return [
        entry(
            tmp_path, f"run-{lr}-{seed}", {"val/accuracy": base + seed / 100, "test/loss": 1 - base}, seed=seed,
            optimizer__lr=lr, output_root=f"out-{seed}", name=f"n{seed}",
        )
        for lr, base in ((0.1, 0.7), (0.01, 0.8)) for seed in range(3)
    ]  # fmt: skip


def test_repeats_are_one_row_with_mean_and_deviation(seeds):
    comparison = compare(seeds)
    assert comparison.keys == ("optimizer.lr",)
    assert [row.count for row in comparison.rows] == [3, 3]
    figure = comparison.rows[1].metrics["val/accuracy"]
    assert figure.mean == pytest.approx(0.81)
    assert figure.std == pytest.approx(statistics.stdev([0.8, 0.81, 0.82]))
    assert comparison.best == {"val/accuracy": frozenset({1}), "test/loss": frozenset({1})}
    assert comparison.goals == {"val/accuracy": "max", "test/loss": "min"}
    assert [row.label for row in comparison.rows] == ["lr 0.1", "lr 0.01"]
    alone = compare(seeds, grouped=False)
    assert set(alone.keys) == {"optimizer.lr", "seed"}
    assert len({row.label for row in alone.rows}) == 6


def test_folds_are_repeats_but_all_of_the_data_is_not_one(tmp_path):
    folds = [entry(tmp_path, f"fold-{fold}", {"val/loss": 0.1}, dataset__fold=fold) for fold in range(3)]
    comparison = compare([*folds, entry(tmp_path, "whole", {"val/loss": 0.2})])
    assert [row.count for row in comparison.rows] == [3, 1]


def test_what_follows_from_a_choice_is_no_column(tmp_path):
    configs = [
        {"model": "mlp", "trainer": "recipe/mlp", "model.hidden": "[16]", "optimizer.lr": 0.1, "trainer.epochs": 5},
        {"model": "mlp", "trainer": "recipe/mlp", "model.hidden": "[16]", "optimizer.lr": 0.2, "trainer.epochs": 5},
        {"model": "cnn", "trainer": "default", "model.width": 8, "optimizer.lr": 0.1, "trainer.epochs": 9, "name": "x"},
    ]
    # The model decides its own keys and the recipe; epochs come last, since they follow too.
    assert differing(configs) == ["model", "optimizer.lr", "trainer.epochs"]
    configs[1]["model.hidden"] = "[32]"
    assert "model.hidden" in differing(configs)
    assert differing(configs[:1]) == []
    assert differing([{"a": True}, {"a": 1}]) == ["a"]
    assert differing([{"a": 1}, {"a": 1.0}]) == []
    assert short_names(["optimizer.lr", "model.lr", "seed", "data.x"]) == ["optimizer.lr", "model.lr", "seed", "x"]


def test_missing_and_broken_figures(tmp_path):
    group = [
        entry(tmp_path, "a", {"val/accuracy": 0.5}, seed=0),
        entry(tmp_path, "b", {}, status="failed", seed=1),
        entry(tmp_path, "c", {"val/accuracy": math.nan}, status="diverged", optimizer__lr=3.0),
        entry(tmp_path, "d", {"val/accuracy": 0.4, "val/bleu": 3.5}, status="running", optimizer__lr=4.0),
    ]
    comparison = compare(group)
    columns = columns_of(comparison)
    assert [column.name for column in columns] == ["lr", "n", "val/accuracy", "val/bleu", "status"]
    assert [column.cells[0] for column in columns] == ["", "2", "0.5000 (1 of 2)", "", "1 finished, 1 failed"]
    assert [column.cells[1] for column in columns] == ["3", "1", "nan", "", "diverged"]
    assert comparison.best["val/accuracy"] == {0}
    assert comparison.best["val/bleu"] == frozenset()
    json.dumps(as_data(compare(group[:2])), allow_nan=False)
    for write in (as_csv, as_markdown, as_latex):
        assert "diverged" in write(comparison)


def test_a_figure_that_one_summary_has_is_not_missing_in_the_others(tmp_path):
    group = [entry(tmp_path, "a", {"train/loss": 0.5}, seed=0), entry(tmp_path, "b", {"val/loss": 0.4}, seed=1)]
    (tmp_path / "b").mkdir()
    (tmp_path / "b/metrics.jsonl").write_text('{"step": 1, "time": 1.0, "train/loss": 0.7}\n')
    (row,) = compare(group, ["train/loss"]).rows
    assert row.metrics["train/loss"].values == (0.5, 0.7)


def test_one_run_and_none(tmp_path):
    one = compare([entry(tmp_path, "a", {"val/accuracy": 0.5, "val/loss": 1.0})])
    assert summary_rows(one) == [
        ("status", "finished"), ("model", "mlp"), ("optimizer", "adam"), ("val/accuracy", "0.5000"),
        ("val/loss", "1.0000"),
    ]  # fmt: skip
    none = compare([], ["val/loss"])
    assert none.rows == ()
    assert as_csv(none) == "run,val/loss,status\n"
    assert as_latex(none).count(r"\\") == 1
    assert as_markdown(none).count("\n") == 2


def test_an_unknown_metric_has_the_nearest_name(seeds):
    with pytest.raises(UserError, match=r"did you mean val/accuracy\?"):
        compare(seeds, ["val/acuracy"])


def test_tables_are_escaped(tmp_path):
    bad = ["=HYPERLINK(1)", "a|b*c", "50%_\\$", "-1"]
    comparison = compare(
        [entry(tmp_path, f"r{i}", {"val/loss": i}, model__x=text) for i, text in enumerate(bad)], grouped=False
    )
    rows = list(csv.DictReader(io.StringIO(as_csv(comparison))))
    assert [row["model.x"] for row in rows] == ["'=HYPERLINK(1)", "a|b*c", "50%_\\$", "-1"]
    assert [float(row["val/loss"]) for row in rows] == [0, 1, 2, 3]
    assert r"a\|b\*c" in as_markdown(comparison)
    assert all(line.replace(r"\|", "").count("|") == 5 - 1 for line in as_markdown(comparison).splitlines())
    latex = as_latex(comparison)
    assert r"50\%\_\textbackslash{}\$" in latex
    assert r"\textbf{0.0000}" in latex


@pytest.mark.parametrize(
    ("metric", "goal"),
    [
        ("val/loss", "min"), ("val/accuracy", "max"), ("test/top5_accuracy", "max"), ("test/fid", "min"),
        ("return", "max"),
        ("gap/accuracy", None), ("lr", None), ("val/map50", "max"), ("train/throughput", "max"), ("seconds", "min"),
    ],
)  # fmt: skip
def test_which_way_is_better(metric, goal):
    assert goal_of(metric) == goal


def test_what_is_monitored_says_which_way(tmp_path):
    assert goal_of("test/oddness", ["val/oddness:min"]) == "min"
    assert goal_of("val/loss", ["val/loss:max"]) == "max"
    run = entry(tmp_path, "a", {"val/odd": 1, "test/odd": 1, "val/loss": 1, "val/nll": 1}, monitor="val/odd:max")
    assert shown_metrics([run]) == ["val/odd", "test/odd", "val/loss"]
    assert main_metric(run) == "test/odd"
    assert main_metric(entry(tmp_path, "a", {"train/loss": 1}, monitor=None)) == "train/loss"
    assert main_metric(entry(tmp_path, "a", {"lr": 1}, monitor=None)) is None


def test_how_figures_are_written():
    assert [metric_text(value) for value in (0.98611, 1.0, 0.0, 19210, 2e-5, 9.63e6 + 0.5, math.nan, -math.inf)] == [
        "0.9861", "1.0000", "0.0000", "19210", "2e-05", "9.63e+06", "nan", "-inf",
    ]  # fmt: skip
    assert [time_text(value) for value in (0.04, 119, 150, 7200, math.nan, None)] == [
        "0.04 s",
        "119.0 s",
        "2 min",
        "2.0 h",
        "",
        "",
    ]


def test_curves_of_repeats_are_a_band(tmp_path):
    entries = []
    for seed in range(2):
        folder = RunFolder(tmp_path / f"run-{seed}")
        folder.path.mkdir()
        folder.write_config(f"seed: {seed}\nchoices: {{model: mlp}}\n")
        rows = [{"step": step, "epoch": 1, "time": 1.0, "val/loss": step + seed * 2} for step in (1, 2, 3)]
        folder.metrics_path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        entries += select([str(folder.path)])
    comparison = compare(entries)
    found = curve_panels(comparison, ["val/loss", "val/nothing"])
    assert list(found) == ["val/loss"]
    (band,) = found["val/loss"].values()
    assert band.x.tolist() == [1, 2, 3]
    assert band.mean.tolist() == [2, 3, 4]
    assert band.std == pytest.approx(np.full(3, math.sqrt(2)))
    assert band.count.tolist() == [2, 2, 2]
    alone = curve_panels(compare(entries, grouped=False), ["val/loss"])["val/loss"]
    assert [band.mean.tolist() for band in alone.values()] == [[1, 2, 3], [3, 4, 5]]


def text_of(lines) -> list[str]:
    return ["".join(part for part, _ in line) for line in lines]


def test_a_plot_of_characters():
    up = (np.arange(10.0), np.arange(10.0))
    lines = text_of(plot_text({"up": up, "down": (up[0], up[1][::-1])}, width=40, height=6))
    assert max(map(len, lines)) <= 40
    assert lines[0].endswith("a")
    assert lines[5].endswith("b")
    assert lines[0].lstrip().startswith("9 ┤")
    assert "9 steps" in lines[7]
    assert lines[8].split() == ["a", "up"]
    inside = {line.index("⠤") for line in lines[:6] if "⠤" in line}
    assert inside
    assert len(lines) == 6 + 2 + 2


def test_a_plot_of_hard_cases():
    x = np.arange(4.0)
    assert plot_text({}) == []
    assert plot_text({"nan": (x, np.full(4, np.nan))}) == []
    flat = text_of(plot_text({"flat": (x, np.ones(4)), "same": (x, np.ones(4))}, width=30, height=3))
    assert "a" in flat[1]
    assert "b" in flat[1]
    assert text_of(plot_text({"one": (x[:1], x[:1])}, width=30, height=3))
    broken = text_of(plot_text({"gap": (x, np.array([0.0, np.inf, np.nan, 1.0]))}, width=30, height=3))
    assert "1 ┤" in broken[0]
    many = plot_text({f"run {i}": (x, x * i) for i in range(40)}, width=60)
    assert len(many) == 12 + 2 + 26


def test_members_of_two_sweeps_with_one_name_are_two_rows(tmp_path):
    entries = [entry(tmp_path / plan, "same", {"val/loss": 1.0}) for plan in "ab"]
    assert [row.label for row in compare(entries, grouped=False).rows] == ["same", "same (2)"]


def test_a_deviation_has_the_decimals_of_its_mean():
    assert spread_text(0.2152, 0.000435) == "0.2152 ± 0.0004"
    assert spread_text(2e-5, 1e-6) == "2e-05 ± 1e-06"
    assert spread_text(19210.0, 0.0) == "19210 ± 0.0000"
