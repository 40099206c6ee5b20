"""One-line answers to unknown commands and options."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from dlx.config.groups import closest
from dlx.config.habits import own_way_of_flag

# What other programs call it.
_OTHER_NAMES = {
    ("fit", "run", "start", "launch", "training"): "dlx train model=resnet",
    ("tune", "search", "optimize", "hpo", "hyperopt", "tuning"): "dlx sweep ... --search tpe --trials 20",
    ("grid", "multirun", "gridsearch", "batch"): "dlx sweep model=mlp,cnn",
    ("val", "validate", "validation", "test", "evaluate", "score", "benchmark"): "dlx eval RUN",
    ("infer", "inference", "classify", "forward"): "dlx predict RUN FILE",
    ("generate", "gen", "synthesize"): "dlx sample RUN",
    ("continue", "restart", "retry"): "dlx resume RUN",
    ("plot", "draw", "curves", "chart", "graph"): "dlx compare RUN --plot curves.png",
    ("diff",): "dlx compare RUN RUN",
    ("ls", "ps", "history", "status", "leaderboard"): "dlx runs",
    ("models", "options", "datasets", "optimizers", "groups"): "dlx list model",
    ("summary", "info", "describe", "model", "layers", "inspect"): "dlx show model=resnet",
    ("cfg", "configuration", "conf", "print"): "dlx config",
    ("ui", "web", "board", "tensorboard", "tb", "serve", "gui"): "dlx dashboard",
    ("html", "page"): "dlx report RUN",
    ("check", "diagnose", "env", "collect-env"): "dlx doctor",
    ("onnx", "save", "convert"): "dlx export RUN",
    ("wandb", "upload", "push"): "dlx sync RUN",
    ("version",): "dlx --version",
    ("help",): "dlx --help",
}


def no_command(word: str, commands: Collection[str]) -> str:
    """The line for an unknown command."""
    if "=" in word:
        return f"{word}: a command comes first; did you mean `dlx train {word}`?"
    known = next((line for names, line in _OTHER_NAMES.items() if word.lower() in names), None)
    if known:
        return f"{word}: there is no such command; did you mean `{known}`?"
    near = closest(word.lower(), [*commands, *(name for names in _OTHER_NAMES for name in names)])
    near = next((f"`{line}`" for names, line in _OTHER_NAMES.items() if near in names), near)
    hint = f"; did you mean {near}?" if near else ";"
    return f"{word}: there is no such command{hint} `dlx --help` lists them"


def refused(error: Any, arguments: Sequence[str]) -> str:
    """The line for an error of the command line's parser; it begins with the typed word."""
    text = " ".join(str(error.format_message()).split())
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dlx"
    flag = getattr(error, "option_name", None)
    if flag and text.startswith("No such option"):
        typed = next((word for word in arguments if word.partition("=")[0] == flag or word.startswith(flag)), flag)
        if way := own_way_of_flag(typed) or own_way_of_flag(flag):
            return f"{typed}: is Hydra's; {way}"
        params = context.command.params if context is not None else []
        known = [name[2:] for param in params for name in param.opts if name.startswith("--")]
        close = closest(flag.lstrip("-"), known, cutoff=0.7)
        near = f"; did you mean --{close}?" if close else ""
        if not near and any(param.name == "overrides" for param in params):
            return f"{flag}: there is no such option; settings are key=value, such as optim.lr=1e-3 ({command} --help)"
        return f"{flag}: there is no such option{near or ';'} {command} --help lists them"
    if found := re.fullmatch(r"Invalid value for '?\[?(?:.*/ )?'?(--?[\w-]+|[^':]+?)'?: (.*?)\.?", text):
        return f"{found[1]}: {found[2].replace('Input should be', 'must be').partition(', unable to')[0]}"
    if found := re.fullmatch(r"Option '(--?[\w-]+)' requires an argument\.?", text):
        return f"{found[1]}: needs a value"
    if found := re.fullmatch(r"Missing (?:argument|option|parameter) '?([^'.]+)'?\.?(.*)", text):
        return f"{found[1]}: is missing{found[2]}; {command} --help shows how"
    return f"{text.rstrip('.')} ({command} --help)"
