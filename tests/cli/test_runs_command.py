import json
import re

from dlx.runs.catalog import Notes, write_notes

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def names(call) -> list[str]:
    assert call.code == 0, call.err
    return [row["run"] for row in json.loads(call.out)]


def test_a_filter_sorts_and_limits(dlx_call, outputs):
    assert len(names(dlx_call("runs", "--json"))) == 3
    members = names(dlx_call("runs", "--members", "--json"))
    assert len(members) == 7
    assert "sgd" in names(dlx_call("runs", "optimizer == sgd and status == diverged", "--json"))[0]
    rows = json.loads(
        dlx_call(
            "runs", "optim.lr in (0.001, 0.01) and val/accuracy >= 0", "--members", "--json", "--sort", "val/loss"
        ).out
    )
    losses = [row["metrics"]["val/loss"] for row in rows]
    assert len(losses) == 4
    assert losses == sorted(losses)
    words = ["val/accuracy >= 0", "--members", "--sort", "val/loss", "--reverse", "--limit", "1", "--json"]
    assert json.loads(dlx_call("runs", *words).out)[0]["metrics"]["val/loss"] == losses[-1]
    assert names(dlx_call("runs", "--members", "--limit", "2", "--json")) == members[-2:]
    assert names(dlx_call("runs", "--members", "--limit", "2", "--reverse", "--json")) == members[:-3:-1]
    assert names(dlx_call("runs", "--limit", "0", "--json")) == []
    sorted_names = names(dlx_call("runs", "--members", "--sort", "val/accuracy", "--reverse", "--json"))
    assert {"sgd" in name or "sweep" in name or "function1d" in name for name in sorted_names[4:]} == {
        True
    }  # no figure


def test_mistakes_are_said(dlx_call, outputs):
    call = dlx_call("runs", "val/acuracy > 0.9")
    assert (call.code, call.out) == (2, "")
    assert "did you mean val/accuracy?" in call.err
    assert "did you mean optimizer.lr?" in dlx_call("runs", "--sort", "optim.rl").err
    assert "did you mean status?" in dlx_call("runs", "--columns", "stats").err
    assert "expected a value after == at the end" in dlx_call("runs", "seed ==").err
    assert "--root nowhere: there is no such folder" in dlx_call("runs", "--root", "nowhere").err
    assert "val/accuracy is a number, 90% is none" in dlx_call("runs", "val/accuracy > 90%").err


def test_runs_inside_a_sweep_are_mentioned(dlx_call, outputs):
    call = dlx_call("runs", "seed == 1")
    assert call.code == 0
    assert "2 of the runs inside sweeps and experiments do (--members)" in call.out
    assert "inside" not in dlx_call("runs", "seed == 5").out


def test_the_table_shows_what_differs(dlx_call, outputs):
    out = dlx_call("runs").out
    sweep = next(line for line in out.splitlines() if "sweep" in line)
    assert "best val/accuracy" in sweep
    assert "0.001, 0.01" in sweep
    assert "\x1b" not in out
    assert "the loss is nan" in next(line for line in out.splitlines() if "diverged" in line)
    chosen = dlx_call("runs", "--members", "--columns", "seed,val/loss").out.splitlines()
    assert chosen[0].split() == ["run", "status", "result", "time", "seed", "val/loss"]


def test_a_terminal_has_colours_and_its_width(dlx_call, outputs, screen):
    screen(70)
    call = dlx_call("runs", "--members")
    lines = [COLOUR.sub("", line) for line in call.out.splitlines()]
    assert "\x1b[32mfinished" in call.out
    assert "\x1b[31mdiverged" in call.out
    assert max(map(len, lines)) <= 70
    assert "not shown: " in call.err
    screen(300)
    assert "not shown" not in dlx_call("runs", "--members").err


def test_tags_are_found_and_names_steer_no_terminal(dlx_call, outputs, screen):
    run = next(outputs.glob("mlp/*sgd*"))
    write_notes(run, Notes(("good",), "\x1b[2J"))
    renamed = run.rename(run.with_name("a\x1b[2Jb"))
    screen(120)
    call = dlx_call("runs", "tag == good", "--columns", "note")
    assert "\x1b[2J" not in call.out
    assert "a\ufffd[2Jb" in call.out
    (row,) = json.loads(dlx_call("runs", "tag == good", "--json").out)
    assert row["run"] == renamed.name
    assert row["note"] == "\x1b[2J"
