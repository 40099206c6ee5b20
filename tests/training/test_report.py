"""One pass gives the figures of the evaluation, the confusion matrix, and the mistakes."""

import pytest
import torch

from dlx.runs.find import find_run
from dlx.training.report import report_run
from dlx.training.run import evaluate_run, open_run


def test_a_classifiers_report_is_one_pass_over_the_split(dlx_call, tiny, monkeypatch):
    dlx_call("train", *tiny)
    run = find_run("@last")
    system, loader = open_run(run, "test")
    seen = []
    monkeypatch.setattr(type(system), "forward", lambda self, x: (seen.append(len(x)), self.layers(x.flatten(1)))[1])
    report = report_run(run, "test")
    assert sum(seen) == len(loader.split)
    assert report.metrics == pytest.approx(evaluate_run(run, "test"))

    confusion = torch.tensor(report.data["confusion"])
    batches = list(loader.all())
    label = torch.cat([batch["label"] for batch in batches])
    with torch.no_grad():
        predicted = torch.cat([system(batch["image"]).argmax(1) for batch in batches])
    assert confusion.sum() == len(label)
    assert confusion[3, 5] == ((label == 3) & (predicted == 5)).sum()
    assert [row["count"] for row in report.tables["per_class"]] == label.bincount().tolist()
    assert set(report.media) == {"confusion", "confused"}


def test_a_regressors_report_has_its_fit(dlx_call):
    dlx_call("train", "model=mlp", "model.hidden=[8]", "data=function1d", "trainer.max_steps=5")
    run = find_run("@last")
    report = report_run(run, "test")
    (axes,) = report.media["fit"].axes
    _, loader = open_run(run, "test")
    lines = {line.get_label(): len(line.get_xdata()) for line in axes.lines}
    assert lines["prediction"] == lines["held-out data"] == len(loader.split)  # more than a batch
    assert lines["training data"]
    assert len(loader.split) > len(next(loader.all())["index"])
    assert "test/r2" in report.metrics
    assert report.tables == report.data == {}
