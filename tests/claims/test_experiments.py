"""Each claim runs at a small size through the command line, leaves its figure, and says whether it held."""

import importlib
import json
import re
from pathlib import Path

import pytest

from dlx.config import compose
from dlx.config.groups import options
from dlx.config.signature import read
from dlx.runs.folder import RunFolder
from dlx.training import run as training

QUICK = ("trainer.epochs=2", "model.hidden=[8]")
SMALL = {
    "optimizers": [*QUICK, "experiment.seeds=1"],
    "gradient_descent": ["model.hidden=[8]", "experiment.passes=1", "data.subset=200"],
    "learning_rate": [*QUICK, "experiment.rates=[1e-3,0.1,1e30]"],
    "adam_epsilon": [*QUICK, "experiment.values=[1e-8,1.0]", "experiment.seeds=1"],
    "regularization": ["trainer.max_steps=2", "experiment.seeds=2"],
    "channel_growth": ["experiment.depth=22", "model.bottleneck=true"],
    "lighter_and_better": ["data.subset=100", "experiment.epochs=1", "experiment.seeds=1"],
    "batch_size": [
        "data=digits", "data.subset=300", "model.hidden=[8]", "experiment.sizes=[8,200]", "experiment.seeds=2",
        "experiment.rates=[0.01,0.05]", "experiment.target=1.0",
    ],
    "receptive_field": ["experiment.channels=4"],
    "receptive_fields": ["experiment.side=5", "experiment.cnn_depth=3", "experiment.hidden=8"],
    "convolutionalization": [
        "trainer.max_steps=2", "data.samples=60", "experiment.larger=64", "experiment.objects=2",
        "experiment.scenes=20",
    ],
    "skips": [
        "trainer.max_steps=2", "trainer.validate_every=2", "data.samples=60", "data.side=32", "model.units=16",
        "model.trunk.width=0.125", "experiment.seeds=1",
    ],
    "anchors": [
        "trainer.max_steps=2", "trainer.validate_every=2", "data.samples=60", "data.side=64", "model.units=16",
        "model.trunk.width=0.125", "experiment.numbers=[1,5]",
    ],
    "detector_ladder": [
        "trainer.max_steps=2", "trainer.validate_every=2", "data.samples=20", "data.side=64", "data.batch_size=8",
        "experiment.images=2",
    ],
    "contrastive_features": [
        "data.samples=100", "data.side=16", "data.batch_size=16", "trainer.max_steps=4", "experiment.labels=[1,3]",
        "experiment.bar=3", "experiment.steps=2", "experiment.seeds=1",
    ],
    "simclr_ablation": [
        "data.samples=100", "data.side=16", "data.batch_size=16", "experiment.temperatures=[0.1,1.0]",
        "experiment.batches=[16,32]", "experiment.labels=3", "experiment.epochs=1", "experiment.seeds=1",
    ],
    "deconvolution": ["experiment.kernels=[2,3]", "experiment.strides=[1,2]", "experiment.side=9"],
    "bottleneck": ["experiment.channels=16", "experiment.squeezed=4", "experiment.side=4"],
    "convolution": ["experiment.digits=[3]", "experiment.scale=1"],
    "activations": ["trainer.epochs=2", "experiment.depth=3", "experiment.width=8", "experiment.seeds=1"],
    "universal_approximation": [
        "trainer.epochs=2", "experiment.functions=[sin]", "experiment.widths=[2,4]", "experiment.knots=[4,8]",
        "experiment.seeds=1",
    ],
    "linear_stays_linear": [*QUICK, "experiment.seeds=1"],
    "degradation": [
        "trainer.epochs=1", "data.subset=40", "data.batch_size=16", "trainer.log_every=1", "experiment.depths=[20,32]",
        "experiment.rates=[0.1]", "experiment.seeds=1",
    ],
    "bias_variance": [
        "trainer.epochs=2", "trainer.validate_every=2", "data.samples=40", "experiment.degrees=[1,3,9]",
        "experiment.widths=[1,2,4]", "experiment.replicates=3", "experiment.mlp_samples=10",
    ],
    "vanishing_gradients": ["experiment.steps=5", "experiment.hidden=8", "experiment.seeds=2"],
    "latent_state": [
        "trainer.max_steps=2", "data.size=3000", "experiment.windows=[1,2]", "experiment.width=8", "experiment.seeds=1",
    ],
    "long_memory": [
        "trainer.max_steps=2", "experiment.samples=100", "experiment.lengths=[4,6]", "experiment.hidden=4",
    ],
    "attention": ["experiment.widths=[4,64]", "experiment.queries=50"],
    "attention_cost": ["experiment.lengths=[4,8,16]", "experiment.width=8", "experiment.repeats=1"],
    "context": ["experiment.reach=3", "experiment.width=8", "experiment.sequences=5"],
    "positions": ["trainer.max_steps=2", "data.samples=300", "model.dim=8", "model.heads=2"],
    "subwords": [
        "trainer.max_steps=2", "data.size=6000", "model.hidden=8", "experiment.kinds=[bytes,characters]",
    ],
    "ensemble": [*QUICK, "experiment.members=3", "experiment.sets=2"],
    "teacher_forcing": [
        "trainer.max_steps=2", "data.samples=300", "model.hidden=8", "experiment.shares=[0,1]", "experiment.seeds=2",
    ],
    "pixel_structure": [
        "trainer.max_steps=2", "experiment.orders=[2]", "experiment.hidden=4", "experiment.seeds=1",
    ],
    "orderings": ["trainer.max_steps=2", "model.hidden=4", "experiment.random=2", "experiment.seeds=1"],
    "vae_terms": [*QUICK, "model.draws=2", "experiment.betas=[0.1,1,10]", "experiment.seeds=1"],
    "priors": [*QUICK, "experiment.seeds=1"],
    "gan_game": ["experiment.distances=[0,2]", "experiment.steps=5"],
    "minimax_or_not": ["trainer.max_steps=2", "model.hidden=[8]", "data.samples=300", "experiment.lead=2"],
    "mode_collapse": ["trainer.max_steps=2", "model.hidden=[8]", "data.samples=300", "experiment.seeds=1"],
    "codes": [
        "data.subset=100", "experiment.epochs=1", "experiment.judge_epochs=1", "experiment.samples=40",
        "experiment.seeds=1",
    ],
    "dcgan_recipe": [
        "data.subset=100", "experiment.width=2", "experiment.epochs=1", "experiment.judge_epochs=1",
        "experiment.samples=40", "experiment.seeds=1",
    ],
    "explicit_vs_implicit": ["trainer.max_steps=2", "experiment.draws=[1,2]", "experiment.side=9"],
    "cycle_consistency": [
        "trainer.max_steps=2", "data.samples=20", "data.side=16", "model.width=4", "model.blocks=1",
        "experiment.seeds=1",
    ],
    "one_generator": ["experiment.width=4", "experiment.steps=3", "experiment.side=16", "experiment.samples=20"],
    "growing": ["trainer.max_steps=4", "model.width=16", "model.latent_dim=4", "experiment.seeds=1"],
    "replay_and_target": [
        "data.warmup=20", "data.episodes=2", "data.val_episodes=2", "model.hidden=[8]", "trainer.validate_every=2",
        "experiment.steps=4", "experiment.seeds=1",
    ],
    "bootstrap": ["trainer.max_steps=2", "data.subset=60", "experiment.replicates=2", "experiment.sets=2"],
}  # fmt: skip


def test_every_experiment_has_a_small_form(alone):
    names = {name for name in options("experiment") if "experiment" in compose(alone("experiment", name)).values}
    assert names == set(SMALL)


@pytest.fixture
def figure_of(monkeypatch):
    """figure_of(NAME)(): what that experiment drew."""

    def watch(name):
        module, _, own = compose([f"experiment={name}"])["experiment"]["_target_"].rpartition(".")
        cls, drawn = getattr(importlib.import_module(module), own), []
        draw = cls.figure
        monkeypatch.setattr(cls, "figure", lambda self, measured: (drawn.append(draw(self, measured)), drawn[-1])[1])
        return drawn.pop

    return watch


@pytest.mark.parametrize("name", SMALL)
def test_it_runs_and_leaves_a_figure_and_a_verdict(name, dlx_call):
    call = dlx_call("train", f"experiment={name}", *SMALL[name], "--json")
    assert call.code == 0, call.err
    (found,) = [json.loads(line) for line in call.out.splitlines()]
    folder = Path(found["run"])
    assert found["status"] == "finished"
    assert (folder / "media" / "figure.png").stat().st_size > 10_000
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["held"] in (True, False)
    assert summary["verdict"] in call.err
    assert summary["measured"] == found["metrics"]


@pytest.mark.parametrize(
    ("name", "words", "labels"),
    [
        ("learning_rate", [], ["lr 0.001", "lr 0.1", "lr 1e+30", "guessing: ln 10 = 2.303"]),
        ("learning_rate", ["model.loss=mse"], ["lr 0.001", "lr 0.1", "lr 1e+30 (diverged)"]),  # ln 10 is no mse
        (
            "gradient_descent",
            [],
            ["one sample a step, lr 0.01", "mini-batches of 32, lr 0.1", "the full batch, lr 0.2", "guessing: ln 10"],
        ),
        ("adam_epsilon", [], ["eps 1e-08", "eps 1", "guessing: ln 10"]),
    ],
)
def test_a_figure_names_its_lines_beside_them_in_ordered_colours(name, words, labels, dlx_call, figure_of):
    figure = figure_of(name)
    assert dlx_call("train", f"experiment={name}", *SMALL[name], *words).code == 0
    drawn = figure()
    (axes,) = [axes for axes in drawn.axes if axes.get_legend()]
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert len(texts) == len(labels)
    assert all(text.startswith(label) for text, label in zip(texts, labels, strict=True))
    drawn.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x0 >= axes.bbox.x1  # off the data
    assert all(axes.get_title() for axes in drawn.axes)
    brightness = [sum(line.get_color()[:3]) for line in axes.lines if not isinstance(line.get_color(), str)]
    assert len(brightness) >= 2
    assert brightness == sorted(brightness)


def test_convolution_draws_the_difference_and_says_how_large_it_is(dlx_call, figure_of):
    figure = figure_of("convolution")
    assert dlx_call("train", "experiment=convolution", *SMALL["convolution"]).code == 0
    rows = [axes.get_title() for axes in figure().axes[-12:]]
    flipped, as_it_is = rows[1:6], rows[7:]
    assert all(float(title.removeprefix("at most ")) < 1e-12 for title in flipped)
    assert [float(title.removeprefix("at most ")) > 0.5 for title in as_it_is] == [False, False, False, True, True]


def test_the_claim_is_a_line_of_its_class():
    for name in SMALL:
        target = compose([f"experiment={name}"])["experiment"]["_target_"]
        signature = read(target)
        assert "dlx.claims.claim.Claim" in signature.ancestors


def test_dry_run_lists_the_members_and_writes_nothing(dlx_call, here):
    call = dlx_call("train", "experiment=learning_rate", "--dry-run")
    assert call.code == 0, call.err
    assert "claim" in call.out
    assert "lr-0.001" in call.out
    assert "optimizer.lr=0.001" in call.out
    assert "runs            7" in call.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("how", [["--executor", "processes", "--jobs", "2"], ["--executor", "batched"]])
def test_its_members_run_by_the_executor_that_is_asked_for(how, dlx_call, monkeypatch):
    def not_here(*given, **more):
        raise AssertionError("it runs in this process, alone")

    monkeypatch.setattr(training, "train", not_here)
    words = ("experiment=adam_epsilon", *SMALL["adam_epsilon"])
    call = dlx_call("train", *words, *how, "--json")
    assert call.code == 0, call.err
    folder = Path(json.loads(call.out)["run"])
    assert {run.status()["status"] for run in map(RunFolder, folder.glob("runs/*"))} == {"finished"}
    assert dlx_call("resume", str(folder), *how).code == 0


def test_a_diverged_member_is_said_and_the_rest_go_on(dlx_call):
    call = dlx_call("train", "experiment=learning_rate", *SMALL["learning_rate"], "model.loss=mse")
    assert call.code == 0, call.err
    assert "diverged        lr-1e30: " in call.out
    assert "run 3/3" in call.err


@pytest.fixture
def failing(monkeypatch):
    """Makes the members whose names begin so fail."""

    def fail(start):
        train = training.train

        def maybe(config, *, at=None, **given):
            if at.name.startswith(start):
                raise OSError("the disk is full")
            return train(config, at=at, **given)

        monkeypatch.setattr(training, "train", maybe)

    return fail


def test_a_failed_member_is_said_by_the_exit_code(dlx_call, failing):
    failing("lr-0.1")
    call = dlx_call("train", "experiment=learning_rate", *SMALL["learning_rate"])
    assert call.code == 1, call.err
    assert "failed          lr-0.1: OSError: the disk is full" in call.out
    folder = Path(re.search(r"1 of \d+ members failed; dlx resume (\S+) tries them again", call.out)[1])
    assert re.fullmatch(r"1 of \d+ members failed", RunFolder(folder).status()["reason"])


def test_an_experiment_of_failed_members_measures_nothing(dlx_call, failing):
    failing("")
    call = dlx_call("train", "experiment=ensemble", "experiment.members=3", "experiment.sets=2")
    assert call.code == 1
    assert "12 of 12 members failed (" in call.err
    assert "Traceback" not in call.err


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["experiment=optimizers", "experiment.seeds=0"], "experiment.seeds: must be at least 1, got 0"),
        (["experiment=optimizers", "experiment.seds=1"], "did you mean seeds?"),
        (["experiment=learning_rate", "experiment.rates=[1,0.1,0.01]"], "experiment.rates: must be at least 3, rising"),
        (["experiment.seeds=1"], "experiment: has no settings; Available options: aae_mnist"),
        (["experiment=learning_rate", "optim.lrr=1"], "optimizer.lrr"),
        (["experiment=learning_rate", "--executor", "nonsense"], "--executor nonsense: unknown; choose from"),
        (["experiment=learning_rate", "--jobs", "0", "--dry-run"], "--jobs: must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, text, dlx_call, here):
    call = dlx_call("train", *words)
    assert call.code == 2, call.err
    assert text in call.err
    assert list(here.iterdir()) == []


def test_runs_lists_the_experiment_and_last_is_it(dlx_call):
    dlx_call("train", "experiment=adam_epsilon", *SMALL["adam_epsilon"])
    rows = json.loads(dlx_call("runs", "--json").out)
    assert [row["group"] for row in rows] == ["adam_epsilon"]
    members = json.loads(dlx_call("runs", "--members", "--json").out)
    assert [row["run"] for row in members[1:]] == ["eps-1-0", "eps-1e-08-0"]
    assert dlx_call("eval", "eps-1e-08-0").code == 0
    call = dlx_call("eval", "@last")
    assert call.code == 2
    assert "experiment" in call.err


@pytest.mark.parametrize(
    ("words", "key", "said"),
    [
        (["experiment=learning_rate", "optim.lr=3"], "optimizer.lr", "it takes experiment.rates"),
        (["experiment=learning_rate", "optim.lr=0.1"], "optimizer.lr", "varies it itself"),  # one of the rates it tries
        (["experiment=optimizers", "optim=sgd"], "optimizer", "varies it itself, so optim=sgd would be without effect"),
        (["experiment=optimizers", "optim.lr=3"], "optimizer.lr", "varies it itself"),
        (["experiment=optimizers", "seed=3"], "seed", "it takes experiment.seeds"),
        (["experiment=regularization", "reg=[mixup]"], "regularization", "varies it itself"),
        (["experiment=lighter_and_better", "model=mlp"], "model", "varies it itself"),
        (["experiment=lighter_and_better", "trainer.epochs=1"], "trainer.epochs", "experiment.epochs"),
        (["experiment=degradation", "model.depth=8"], "model.depth", "experiment.depths"),
        (["experiment=channel_growth", "model.depth=22"], "model.depth", "experiment.depth"),
        (["experiment=convolution", "optim.lr=3"], "optimizer.lr", "trains nothing and reads seed, dataset alone"),
        (["experiment=bottleneck", "model=cnn"], "model", "trains nothing and reads seed alone"),
        (["experiment=learning_rate", "method=kfold"], "method", "leave it out"),
    ],
)
@pytest.mark.parametrize("dry", [False, True])
def test_overrides_of_what_a_claim_varies_are_refused(words, key, said, dry, dlx_call, here):
    call = dlx_call("train", *words, *(["--dry-run"] if dry else []))
    assert call.code == 2, call.out
    (line,) = call.err.splitlines()
    assert line.startswith(f"error: {key}: ")
    assert said in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ["experiment=learning_rate", "model.hidden=[8]", "data.subset=100", "name=mine"],
        ["experiment=learning_rate", "optim.momentum=0.5"],
        ["experiment=optimizers", "model=linear"],
        ["experiment=convolution", "seed=3"],
        ["experiment=channel_growth", "model.bottleneck=true"],
    ],
)
def test_overrides_of_what_it_does_not_vary_work(words, dlx_call):
    call = dlx_call("train", *words, "--dry-run")
    assert call.code == 0, call.err


def test_a_folder_from_before_the_package_was_renamed_opens(dlx_call):
    found = json.loads(dlx_call("train", "experiment=adam_epsilon", *SMALL["adam_epsilon"], "--json").out)
    config = Path(found["run"], "config.yaml")
    config.write_text(config.read_text().replace("dlx.claims.adam_epsilon", "dlx.experiments.adam_epsilon"))
    config.with_name("points.yaml").unlink()  # claims had none
    call = dlx_call("resume", found["run"], "--json")
    assert call.code == 0, call.err
    assert json.loads(call.out) == found


def test_a_claim_whose_members_diverged_early_names_them(dlx_call):
    words = ("experiment.seeds=1", "trainer.max_steps=5", "optim.lr=1e30")
    call = dlx_call("train", "experiment=adam_epsilon", *words)
    assert call.code == 1
    assert "members diverged (eps-1e-08-0, eps-0.0001-0, eps-0.01-0), and without them nothing can be" in call.err


def test_a_verdict_can_be_parsed():
    from dlx.claims.learning_rate import LearningRate

    found = {"epochs": [1.0], "status": "finished", "guessing": 2.3}
    losses = {"0.0001": 2.23, "1": 0.000436, "100": 46.8}
    measured = {rate: {**found, "losses": [loss]} for rate, loss in losses.items()}
    line = LearningRate(rates=(1e-4, 1.0, 100.0)).verdict(measured).line
    assert line == "loss at the end: 2.23 at lr 0.0001, best 0.000436 at lr 1, 46.8 at lr 100 (finished)"
    pairs = {rate: float(loss) for loss, rate in re.findall(r"([\d.]+) at lr ([\d.]+)", line)}
    assert pairs == losses


def test_its_members_are_composed_once(dlx_call, monkeypatch):
    """And one of each variant again, to see whether what was typed has an effect."""
    from dlx.claims.linear_stays_linear import LinearStaysLinear

    composed = []
    members = LinearStaysLinear._members
    monkeypatch.setattr(
        LinearStaysLinear, "_members", lambda self, base, seeds: composed.append(seeds) or members(self, base, seeds)
    )
    words = ["experiment=linear_stays_linear", "experiment.seeds=2", "trainer.max_steps=2"]
    assert dlx_call("train", *words).code == 0
    assert composed == [1, 2]
