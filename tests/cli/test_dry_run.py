"""--dry-run accepts nothing that the run refuses, says it in the same words, and shows what will be."""

import os

import pytest

SMALL = ("model=mlp", "model.hidden=[8]", "trainer.max_steps=2")


@pytest.fixture
def refused(dlx_call, here):
    """The line with which both refuse."""

    def call(*arguments: str) -> str:
        before = sorted(path.name for path in here.iterdir())
        dry, run = dlx_call(*arguments, "--dry-run"), dlx_call(*arguments)
        assert (dry.code, run.code) == (2, 2), (dry.err, run.err)
        assert dry.err == run.err
        assert sorted(path.name for path in here.iterdir()) == before
        (line,) = run.err.splitlines()
        return line

    return call


KINDS = {
    "run": ("train", *SMALL),
    "method": ("train", *SMALL, "method=kfold", "method.k=2"),
    "sweep": ("sweep", *SMALL, "seed=1,2"),
    "search": ("sweep", *SMALL, "optim.lr=interval(0.1,1)", "--search", "random", "--trials", "2"),
    "claim": ("train", "experiment=linear_stays_linear", "experiment.seeds=1"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_device_that_is_not_there(kind, refused):
    assert "trainer.device: cuda:99 is not there" in refused(*KINDS[kind], "trainer.device=cuda:99")


@pytest.mark.parametrize("kind", KINDS)
def test_an_output_root_that_is_a_file(kind, refused, here):
    (here / "file").write_text("")
    assert "output_root: cannot write to file/" in refused(*KINDS[kind], "output_root=file")


@pytest.mark.parametrize(
    "words",
    [
        ("sweep", "data.batch_size=32,1"),
        ("sweep", "data.batch_size=32,1", "--search", "random", "--trials", "2"),
        ("train", "data.batch_size=1", "method=kfold"),
    ],
)
def test_a_member_with_a_batch_of_one_before_a_batch_norm(words, refused):
    line = refused(words[0], *SMALL, "model.norm=batch", *words[1:])
    assert "dataset.batch_size: a batch has 1, and layers.1 normalizes a batch of at least 2" in line


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_an_output_root_without_permission(refused, here):
    (here / "shut").mkdir(mode=0o500)
    assert "output_root: cannot write to shut/mlp (no permission in shut)" in refused(*KINDS["run"], "output_root=shut")


def test_a_full_disk(refused, monkeypatch):
    class Full:
        f_bavail = 0

    monkeypatch.setattr(os, "statvfs", lambda path: Full())
    assert "is full" in refused(*KINDS["run"])


@pytest.mark.parametrize("size", ["abc", "0", "-1", "1.5"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_world_size_that_is_no_number(kind, size, refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", size)
    assert refused(*KINDS[kind]) == f"error: WORLD_SIZE={size}: must be a whole number from 1; torchrun sets it"


def test_a_world_size_without_its_processes(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "WORLD_SIZE=2: is set, but RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT is not" in refused(*KINDS["run"])
    assert "not under torchrun" in refused(*KINDS["sweep"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("data.batch_size=33",), "dataset.batch_size: 33 cannot be shared evenly by 2 processes"),
        (("data.drop_last=false",), "dataset.drop_last: several processes need full batches"),
    ],
)
def test_what_two_processes_cannot_share(words, said, refused, monkeypatch):
    for name, value in {
        "WORLD_SIZE": "2",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "x",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert said in refused(*KINDS["run"], *words)


def test_overrides_of_what_a_claim_varies(refused):
    line = refused("train", "experiment=learning_rate", "optim.lr=3")
    assert line.startswith("error: optimizer.lr: learning_rate varies it itself, so optim.lr=3 would be without effect")


def test_a_member_has_a_name_that_a_folder_can_have(dlx_call):
    """A point's name is cut to what there is room for; what its method calls a run stands behind it."""
    wide = f"[{','.join(['16'] * 30)}]"
    words = ["sweep", "model=mlp", f"model.hidden={wide},[8]", "method=kfold", "method.k=2", "trainer.max_steps=1"]
    dry = dlx_call(*words, "--dry-run")
    assert dry.code == 0, dry.err
    names = [line.split()[0] for line in dry.out.splitlines()[1:5]]
    assert [name[-6:] for name in names] == ["fold-0", "fold-1", "fold-0", "fold-1"]
    run = dlx_call(*words, "--json")
    assert run.code == 0, run.err
    from pathlib import Path

    (plan,) = Path("outputs/kfold").glob("*/plan")
    assert sorted(path.stem for path in plan.glob("*.yaml")) == sorted(names)


def test_what_will_be_is_shown(dlx_call, here):
    out = dlx_call("train", *SMALL, "name=my run", "output_root=there", "trainer.device=cpu", "--dry-run").out
    assert "device          cpu\n" in out
    assert "run folder      there/my-run/ (not made: --dry-run)" in out
    sweep = dlx_call("sweep", *SMALL, "optim.lr=1e-3,1e-2", "name=my sweep", "--dry-run").out
    assert "folder          outputs/my-sweep/" in sweep
    search = dlx_call(*KINDS["search"], "--dry-run").out
    assert "folder          outputs/sweep/" in search
    claim = dlx_call("train", "experiment=learning_rate", "--dry-run").out
    assert "folder          outputs/learning_rate/" in claim
    assert list(here.iterdir()) == []
