"""Keys and flags of Hydra, and what dlx has instead."""

from __future__ import annotations

import re

# By key; the longest that matches is shown.
_KEYS = {
    "run": "output_root=DIR and name=NAME say where a run goes",
    "sweep": "output_root=DIR and name=NAME say where a sweep goes",
    "runtime": "output_root=DIR and name=NAME say where a run goes",
    "job.name": "name=NAME names a run's folder",
    "job.chdir": "the working directory is never changed",
    "launcher": "--executor processes, ray or slurm says where members run, --jobs how many at a time",
    "sweeper": "`dlx sweep ... --search tpe --trials 20` searches",
    "searchpath": "--conf-dir DIR adds a folder of options",
    "mode": "`dlx sweep`, or `dlx train -m`, trains several",
    "verbose": "--debug shows where a failure comes from",
    "job_logging": "--quiet leaves the progress out, and log.txt in the run's folder has it",
    "hydra_logging": "--quiet leaves the progress out, and log.txt in the run's folder has it",
    "help": "`dlx train --help`, `dlx list` and `dlx config` show what there is",
    "output_subdir": "config.yaml in the run's folder has the configuration",
    "callbacks": "tracker=[...] chooses where metrics go",
}
_FLAGS = {
    ("--cfg", "-c"): "`dlx config` prints the configuration",
    ("--resolve",): "`dlx config` prints the configuration, resolved",
    ("--package", "-p"): "`dlx config` prints the configuration",
    ("--info", "-i", "--hydra-help"): "`dlx list`, `dlx config` and `dlx doctor` show what there is",
    ("--run", "-r"): "`dlx train` runs one configuration",
    ("--multirun", "-m"): "`dlx sweep` trains several",
    ("--config-path", "-cp", "--config-dir", "-cd"): "--conf-dir DIR adds a folder of options",
    ("--config-name", "-cn"): "experiment=NAME chooses a file of conf/experiment",
    ("--experimental-rerun",): "--from RUN begins with the configuration of a run",
    ("--shell-completion", "-sc"): "--install-completion installs it",
}


def is_hydras(key: str) -> bool:
    return re.match(r"hydra([./@:]|$)", key) is not None


def own_way_of_key(key: str) -> str:
    """What to write instead of a key such as hydra.run.dir or hydra/launcher."""
    rest = key[len("hydra") :].lstrip("./@:").replace("/", ".")
    known = [name for name in _KEYS if rest == name or rest.startswith(f"{name}.")]
    return _KEYS[max(known, key=len)] if known else "`dlx config` shows the keys that there are"


def own_way_of_flag(flag: str) -> str | None:
    """What to write instead of a flag such as --cfg; None for what is none of Hydra's."""
    return next((way for flags, way in _FLAGS.items() if flag.partition("=")[0] in flags), None)
