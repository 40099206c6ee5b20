"""Completion, in a pseudo terminal where a shell is there, and by the scripts' protocol everywhere."""

import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from typing import ClassVar

import pytest

SETUP = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], ['eval "$(dlx --show-completion bash)"']),
    "zsh": (["zsh", "-f", "-i"], ["autoload -Uz compinit; compinit -u -D", 'eval "$(dlx --show-completion zsh)"']),
    "fish": (["fish", "--no-config", "-i"], ["dlx --show-completion fish | source"]),
}
PATIENCE = 60  # seconds; an answer takes half of one


@pytest.fixture
def path_with_dlx(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    dlx = home / "bin" / "dlx"
    dlx.parent.mkdir()
    dlx.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m dlx "$@"\n')
    dlx.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dlx.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    return home


class Terminal:
    def __init__(self, shell: str) -> None:
        argv, setup = SETUP[shell]
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.environ.update(TERM="dumb", PS1="$ ")
            os.execvp(argv[0], argv)
        self.seen = ""
        for number, line in enumerate(setup):
            self.type(f"{line}; echo ready-$(expr {number} + 40)\n")
            self.until(f"ready-{number + 40}")

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def until(self, text: str) -> str:
        """What was seen since the last call, up to the text."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < end, f"no {text!r} in {self.seen!r}"
            if select.select([self.fd], [], [], 0.2)[0]:
                self.seen += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07", "", os.read(self.fd, 4096).decode(errors="replace"))
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def close(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@pytest.fixture(params=SETUP)
def terminal(request, here, path_with_dlx):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    made = Terminal(request.param)
    yield made
    made.close()


def test_words_are_completed_behind_an_equals_sign(terminal, here):
    (here / "photos").mkdir()
    for typed, expected in {
        "dlx train model=res\t": "dlx train model=resnet ",
        "dlx train model=resnet optim=adag\t": "optim=adagrad ",
        "dlx train model=resnet model.shortcut=projection_\t": "model.shortcut=projection_all ",
        "dlx train optim.l\t": "optim.lr=",
        "dlx tra\t": "dlx train ",
        "dlx train data.path=pho\t": "data.path=photos/",
    }.items():
        terminal.type(typed)
        terminal.until(expected.strip())
        terminal.type("\x15")  # the line is cut


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dlx train model=res", ["model=resnet"]),
        ("dlx train reg=[mixup,dro", ["reg=[mixup,dropout"]),
        ("dlx train model=resnet model.dep", ["model.depth="]),
        ("dlx sweep optim=adam,sgd", ["optim=adam,sgd", "optim=adam,sgdp"]),
        ("dlx train trainer.compile=", ["trainer.compile=true", "trainer.compile=false"]),
        ("dlx show mod", ["model="]),
        ("dlx train model=zzz", []),
        ("dlx list opt", ["optimizer"]),
    ],
)
def test_the_protocol_of_the_scripts(line, expected, here):
    env = {**os.environ, "_DLX_COMPLETE": "complete_fish", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    done = subprocess.run(
        [sys.executable, "-m", "dlx"], env={**env, "_TYPER_COMPLETE_ARGS": line}, capture_output=True, text=True,
    )  # fmt: skip
    assert [answer.partition("\t")[0] for answer in done.stdout.split("\n") if answer] == expected
    assert done.stderr == ""


def test_runs_are_completed_below_their_root(dlx_call, monkeypatch):
    from dlx.cli.options import complete_run, complete_run_or_override

    dlx_call("train", "model=mlp", "trainer.max_steps=1", "output_root=there")

    class Context:
        params: ClassVar[dict[str, str]] = {"root": "there"}

    (name,) = [name for name in complete_run(Context(), "2") if name]
    assert name in complete_run_or_override(Context(), name[:10])
    assert complete_run_or_override(Context(), "model=res") == ["model=resnet"]
    Context.params = {}
    assert complete_run(Context(), "") == ["@last"]
    monkeypatch.setenv("DLX_OUTPUTS", "there")
    assert complete_run(Context(), "") == ["@last", name]


@pytest.mark.parametrize("shell", SETUP)
def test_the_scripts_are_shown_and_installed_once(shell, dlx_call, path_with_dlx):
    shown = dlx_call("--show-completion", shell)
    assert shown.code == 0
    assert "_TYPER_COMPLETE_ARGS" in shown.out
    for _ in range(2):
        assert dlx_call("--install-completion", shell).code == 0
    (script,) = [
        path for path in path_with_dlx.rglob("*") if path.is_file() and "dlx" in path.name and path.parent.name != "bin"
    ]
    assert script.read_text().rstrip() == shown.out.rstrip()
    for start in (path_with_dlx / ".bashrc", path_with_dlx / ".zshrc"):
        assert not start.exists() or len(start.read_text().splitlines()) == 1
    if shutil.which(shell):
        subprocess.run([shell, "-n", str(script)], check=True)


def test_another_shell_is_refused(dlx_call):
    call = dlx_call("--show-completion", "tcsh")
    assert (call.code, call.err) == (2, "error: --show-completion tcsh: must be one of bash, zsh, fish\n")


def test_completion_loads_nothing_heavy(here):
    code = (
        "import os, sys; os.environ.update(_DLX_COMPLETE='complete_fish', _TYPER_COMPLETE_FISH_ACTION='get-args',"
        "_TYPER_COMPLETE_ARGS='dlx train model=res'); sys.argv = ['dlx']\n"
        "import dlx.cli\n"
        "try: dlx.cli.main()\n"
        "except SystemExit: pass\n"
        "assert not {'torch', 'hydra', 'numpy', 'matplotlib', 'optuna'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
