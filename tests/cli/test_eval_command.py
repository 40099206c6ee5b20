import json
from pathlib import Path

from dlx.cli.evaluate import _table


def test_eval_tells_each_class_and_draws(dlx_call, only_run, tiny):
    dlx_call("train", *tiny)
    call = dlx_call("eval", "@last")
    assert call.code == 0, call.err
    lines = call.out.splitlines()
    (heading,) = [number for number, line in enumerate(lines) if line.startswith("class")]
    assert lines[heading].split() == ["class", "precision", "recall", "f1", "count"]
    assert [line.split()[0] for line in lines[heading + 1 : heading + 11]] == [str(digit) for digit in range(10)]
    for name in ("confusion", "confused"):
        assert f"picture         {only_run() / 'media' / name}.png" in lines
        assert (only_run() / "media" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert not list((only_run() / "media").glob(".*"))


def test_json_has_the_classes_the_matrix_and_the_pictures(dlx_call, tiny):
    dlx_call("train", *tiny)
    told = json.loads(dlx_call("eval", "@last", "--json").out)
    matrix, rows = told["confusion"], told["per_class"]
    assert [sum(row) for row in matrix] == [row["count"] for row in rows]
    right = sum(matrix[i][i] for i in range(10)) / sum(map(sum, matrix))
    assert told["metrics"]["test/accuracy"] == right
    assert [Path(picture).name for picture in told["pictures"]] == ["confusion.png", "confused.png"]
    of_val = json.loads(dlx_call("eval", "@last", "--split", "val", "--json").out)["pictures"]
    assert [Path(picture).name for picture in of_val] == ["confusion-val.png", "confused-val.png"]


def test_of_many_classes_the_worst_are_listed():
    rows = [
        {"class": f"c{n}", "precision": 0.5, "recall": float("nan"), "f1": (n * 7 % 25) / 25, "count": 1}
        for n in range(25)
    ]
    rows.append({**rows[0], "class": "nowhere", "f1": float("nan")})
    heading, *lines = _table("per_class", rows).splitlines()
    assert heading.startswith("worst 20 of 26")
    assert len(lines) == 20
    assert lines[0].split() == ["c0", "0.5000", "-", "0.0000", "1"]
    values = [float(line.split()[3]) for line in lines]
    assert values == sorted(values)
    assert max(values) == 0.76


def test_regression_draws_its_fit(dlx_call, only_run):
    dlx_call("train", "model=mlp", "model.hidden=[8]", "data=function1d", "trainer.max_steps=5")
    call = dlx_call("eval", "@last", "--json")
    assert [Path(picture).name for picture in json.loads(call.out)["pictures"]] == ["fit.png"]
    assert "per_class" not in json.loads(call.out)
    assert (only_run() / "media" / "fit.png").exists()


def test_an_analysis_that_a_system_has_not_is_refused(dlx_call, tiny):
    dlx_call("train", "model=linear", *tiny[2:])
    call = dlx_call("eval", "@last", "--analysis", "probe")
    assert call.code == 2
    assert "--analysis probe: Linear has none" in call.err


def test_a_probe_reads_the_labels_off_the_features(dlx_call):
    dlx_call("train", "model=mlp", "trainer.epochs=5", "name=probed")
    told = json.loads(dlx_call("eval", "probed", "strength=10", "--analysis", "probe", "--json").out)
    assert told["features"] == 256
    assert told["metrics"]["probe_test/accuracy"] > 0.9
    few = json.loads(dlx_call("eval", "probed", "samples=50", "--analysis", "probe", "--json").out)["metrics"]
    assert 0.6 < few["probe_test/accuracy"] < told["metrics"]["probe_test/accuracy"]
    assert "samples: must be at least 2" in dlx_call("eval", "probed", "samples=1", "--analysis", "probe").err
    for words, text in (
        (["strenght=1"], "unknown argument strenght; did you mean strength?"),
        (["strength=abc"], "must be a number"),
        (["strength=0"], "must be above 0"),
        (["strength"], "must be NAME=VALUE"),
    ):
        call = dlx_call("eval", "probed", *words, "--analysis", "probe")
        assert call.code == 2
        assert text in call.err
    assert "did you mean" not in dlx_call("eval", "probed", "strength=1").err
    assert dlx_call("eval", "probed", "--analysis", "prob").code == 2


def test_the_worst_mistakes_of_a_large_split_are_not_all_kept(dlx_call, tiny):
    from dlx.runs.find import find_run
    from dlx.tasks.confusion import MISTAKES
    from dlx.training.distributed import Dist
    from dlx.training.evaluate import collect
    from dlx.training.trained import open_run

    dlx_call("train", *tiny, "dataset.eval_batch_size=32", "optim.lr=1e-6")
    system, loader = open_run(find_run("@last"), "train")
    sums = collect(system, loader, Dist(system.device), report=True)
    assert len(sums["mistakes"]) == MISTAKES
    nll = [one.nll for one in sums["mistakes"]]
    assert nll == sorted(nll, reverse=True)
