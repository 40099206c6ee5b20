"""dlx config: the composed configuration."""

from __future__ import annotations

from dlx.cli.options import ConfDirs, Json, Overrides, Trust, trusted
from dlx.cli.output import print_json, say
from dlx.config import compose


def config(overrides: Overrides = None, conf_dir: ConfDirs = None, trust: Trust = None, json: Json = False) -> None:
    """Print the checked, complete configuration that `dlx train` would run."""
    composed = compose(overrides or [], conf_dirs=conf_dir or (), trust=trusted(trust))
    if json:
        print_json({**composed.values, "choices": composed.choices})
    else:
        say(composed.to_yaml().rstrip())
