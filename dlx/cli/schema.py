"""dlx schema: JSON schema of configurations, for editors."""

from __future__ import annotations

from dlx.cli.options import ConfDirs, Trust, trusted
from dlx.cli.output import print_json


def schema(conf_dir: ConfDirs = None, trust: Trust = None) -> None:
    """Print a JSON schema of configurations (editors complete and check YAML with it)."""
    from dlx.config.schema import json_schema

    print_json(json_schema(conf_dir or (), trusted(trust)))
