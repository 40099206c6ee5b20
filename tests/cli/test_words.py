"""What is typed is answered for what was typed, in one true line, before anything is written."""

import pytest

import dlx
from dlx.config.groups import option_names


def line_of(call):
    assert call.code == 2, call.out
    (line,) = call.err.splitlines()
    assert "Traceback" not in line
    return line


def test_the_version(dlx_call):
    call = dlx_call("--version")
    assert (call.code, call.out) == (0, f"dlx {dlx.__version__}\n")


def test_bare_dlx_is_help(dlx_call):
    call = dlx_call()
    assert call.code == 0
    assert call.out == dlx_call("--help").out
    assert "Usage: dlx" in call.out


@pytest.mark.parametrize(
    ("word", "remedy"),
    [
        ("plot", "did you mean `dlx compare RUN --plot curves.png`?"),
        ("val", "did you mean `dlx eval RUN`?"),
        ("test", "did you mean `dlx eval RUN`?"),
        ("tune", "did you mean `dlx sweep ... --search tpe --trials 20`?"),
        ("infer", "did you mean `dlx predict RUN FILE`?"),
        ("fit", "did you mean `dlx train model=resnet`?"),
        ("trian", "did you mean train?"),
        ("swep", "did you mean sweep?"),
        ("evaluat", "did you mean `dlx eval RUN`?"),
        ("models", "did you mean `dlx list model`?"),
        ("model=resnet", "a command comes first; did you mean `dlx train model=resnet`?"),
        ("qqqqqq", "there is no such command; `dlx --help` lists them"),
    ],
)
def test_a_misspelt_command_has_a_did_you_mean(word, remedy, dlx_call, here):
    line = line_of(dlx_call(word, "x"))
    assert line.startswith(f"error: {word}: ")
    assert remedy in line
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--cfg", "job"], "--cfg: is Hydra's; `dlx config` prints the configuration"),
        (["train", "-c", "job"], "-c: is Hydra's; `dlx config`"),
        (["train", "--config-dir", "x"], "--config-dir: is Hydra's; --conf-dir DIR"),
        (["train", "--config-name=x"], "--config-name=x: is Hydra's; experiment=NAME"),
        (["train", "-cn", "x"], "-cn: is Hydra's; experiment=NAME"),
        (["train", "--experimental-rerun", "x"], "--experimental-rerun: is Hydra's; --from RUN"),
        (["sweep", "--multirun"], "--multirun: is Hydra's; `dlx sweep`"),
        (["train", "--info"], "--info: is Hydra's"),
        (["train", "hydra.run.dir=x"], "hydra.run.dir=x: dlx has no settings of Hydra's; output_root=DIR"),
        (["train", "hydra.sweep.dir=x"], "output_root=DIR"),
        (["train", "hydra/launcher=joblib"], "--executor processes, ray or slurm"),
        (["sweep", "hydra/sweeper=optuna", "seed=1,2"], "--search tpe"),
        (["train", "+hydra.job.name=x"], "name=NAME"),
        (["train", "hydra.job.chdir=true"], "the working directory is never changed"),
        (["train", "hydra.verbose=true"], "--debug"),
        (["train", "hydra.searchpath=[x]"], "--conf-dir DIR"),
        (["train", "hydra.nothing=1"], "`dlx config` shows the keys"),
    ],
)
def test_hydras_own_words_are_named_with_dlxs_way(arguments, said, dlx_call, here):
    assert said in line_of(dlx_call(*arguments))
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--lr", "3"], "--lr: there is no such option; settings are key=value, such as optim.lr=1e-3"),
        (["train", "--sedes", "3"], "--sedes: there is no such option; did you mean --seeds?"),
        (["runs", "--nonsense"], "--nonsense: there is no such option; dlx runs --help lists them"),
        (["train", "--seeds", "x"], "--seeds: must be a valid integer"),
        (["train", "--seeds"], "--seeds: needs a value"),
        (["sample", "@last", "-n", "0"], "--count: must be greater than or equal to 1"),
        (["eval"], "RUN: is missing; dlx eval --help shows how"),
        (["list", "foo"], "foo: unknown group; groups: model, dataset,"),
        (["list", "optmizer"], "optmizer: unknown group; did you mean optimizer? groups:"),
        (["train", "reg=mixup,dropout"], "got mixup,dropout; several at once are reg=[mixup,dropout]"),
        (["train", "tracker=local,wandb"], "several at once are tracker=[local,wandb]"),
        (["train", "model=mlp,cnn"], "model: takes one value in one run, got mlp,cnn"),
        (["train", "optim.lr=-1"], "optimizer.lr: must be at least 0, got -1.0"),
        (["train", "optim.betas=[0.9,2]"], "optimizer.betas: must be in [0, 1), got 2"),
        (["train", "data.batch_size=0"], "dataset.batch_size: must be at least 1, got 0"),
        (["train", "reg=[mixup]", "reg.mixup.alpha=-1"], "regularization.mixup.alpha: must be above 0, got -1"),
        (["train", "optim.lr=inf"], "optimizer.lr: must be finite, got inf"),
        (["train", "data=function1d", "reg=[label_smoothing]"], "regularization.label_smoothing: needs class labels"),
        (["train", "~optim.lr"], "optimizer.lr: is required and cannot be deleted; give optim.lr=..."),
        (["train", "~optimizer.lr", "optim=sgd"], "optimizer.lr: is required"),
        (["train", "~seed"], "seed: is required and cannot be deleted"),
        (["train", "~output_root"], "output_root: is required and cannot be deleted"),
        (["train", "optim.lr=1", "optim.lr=2"], "optimizer.lr: is given twice: optim.lr=1 and optim.lr=2"),
        (["train", "optim.lr=1", "optimizer.lr=2"], "is given twice: optim.lr=1 and optimizer.lr=2"),
        (["train", "+optim.lr=1", "++optim.lr=1"], "is given twice: +optim.lr=1 and ++optim.lr=1"),
        (["train", "optim.lr=1", "~model.dropout", "~model.dropout"], "model.dropout: is given twice"),
        (["train", "seed=1", "seed=1"], "seed: is given twice: seed=1 and seed=1"),
        (["train", "reg=[mixup]", "reg.mixup.alpha=1", "reg.mixup={alpha: 2}"], "would undo reg.mixup.alpha=1"),
        (["sweep", "optim.lr=1", "optim.lr=1,2"], "is given twice: optim.lr=1 and optim.lr=1,2"),
        (["sweep", "optim.lr=1,2", "optimizer.lr=3,4"], "is given twice"),
        (["sweep", "model=mlp,cnn", "model=linear"], "is given twice"),
        (["sweep", "optim.lr=interval(1,2)", "optim.lr=3", "--search", "random"], "is given twice"),
    ],
)
def test_what_was_typed_is_what_is_blamed(arguments, said, dlx_call, here):
    line = line_of(dlx_call(*arguments))
    assert said in line
    assert "conf/" not in line
    assert list(here.iterdir()) == []


def test_what_cannot_be_written_in_a_terminal_is_left_out(dlx_call, here):
    call = dlx_call("train", "model=\x1b[31mred\x1b[0m\x07")
    assert call.code == 2
    assert "\x1b" not in call.err
    assert "\x07" not in call.err


@pytest.mark.parametrize("where", ["forward", "state"])
def test_no_raw_escape_codes_in_reasons(where, dlx_call, only_run, tiny, monkeypatch):
    """torch colours some of its messages."""
    from dlx.models.mlp import MLP

    def fails(*arguments, **named):
        raise RuntimeError("\x1b[31;1mmat1 and mat2\x1b[0m cannot be multiplied")

    monkeypatch.setattr(MLP, where, fails)
    call = dlx_call("train", *tiny)
    assert call.code in (1, 5), call.err
    run = only_run()
    for text in (call.out, call.err, (run / "status.json").read_text(), (run / "log.txt").read_text()):
        assert "\x1b" not in text
        assert "u001b" not in text
    assert "mat1 and mat2 cannot be multiplied" in (run / "status.json").read_text()


def test_options_are_listed_with_whole_descriptions_and_recipes_apart(dlx_call):
    out = dlx_call("list", "optimizer").out
    options, recipes = out.split("\nrecipe\n")
    assert options.startswith("option\n")
    assert "recipe/" not in options
    assert "recipe/resnet" in recipes
    assert all(line.startswith("recipe/") for line in recipes.splitlines())
    claims, recipes = dlx_call("list", "experiment").out.split("\nrecipe\n")
    assert "learning_rate" in claims
    assert "resnet_cifar10" in recipes
    assert "resnet_cifar10" not in claims
    listed = dlx_call("list").out
    assert "recipe/" not in listed
    count = sum(name.startswith("recipe/") for name in option_names("optimizer"))
    assert f"{count} recipes" in listed


def test_a_description_is_its_whole_paragraph(dlx_call, write_files, monkeypatch):
    words = " ".join(f"word{n}" for n in range(40))
    write_files({"mine/scheduler/own.yaml": f"# {words[:120]}\n# {words[120:]}\n#   dlx train\n_target_: x.Y\n"})
    out = dlx_call("list", "scheduler", "--conf-dir", "mine").out
    assert words in " ".join(out.split()).replace(words[:120] + " " + words[120:], words)
    assert "dlx train" not in out


def test_descriptions_are_wrapped_to_a_terminal(here, monkeypatch, capsys):
    import sys

    from dlx.cli.list_ import list_options

    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    list_options("optimizer")
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 60 for line in lines)
    text = " ".join(line[len("adadelta  ") :] for line in lines[1:4] if line)
    assert "Adagrad over a window, with steps" in text
