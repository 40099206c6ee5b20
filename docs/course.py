"""Trains every system and claim of conf/course.yaml on its defaults, and writes what they reached: `make course`.

    python docs/course.py                          hours; a later call trains what is missing or changed
    python docs/course.py --only gan --seeds 3     those whose command has `gan` in it, from seeds 0, 1 and 2
    python docs/course.py --data FOLDER            real data too, from the archives that lie there
    python docs/course.py --tables                 only writes docs/results.md from docs/results/

Each result is a small file in docs/results/: the command, seed, metrics, seconds, parameters, versions. It is out of
date when the command's configuration, or the source file of its model, data or claim, has changed. Run folders lie in
outputs/course/; what was cut off there goes on.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tables import write_tables

from dlx.cli.output import say
from dlx.config import Config, compose
from dlx.config.course import lectures
from dlx.config.keys import flatten
from dlx.runs.files import find_object, write_atomic

ROOT = Path(__file__).resolve().parents[1]
RESULTS, RUNS = ROOT / "docs" / "results", ROOT / "outputs" / "course"
FASHION = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package has it

NO_RESULT = (4, 130, 143, -signal.SIGINT, -signal.SIGTERM)  # the folder is in use, interrupted

COMPOSING = Lock()  # Hydra composes one at a time
CHILDREN: set[subprocess.Popen[bytes]] = set()  # that train now

# Commands beside those of the lectures, by section. {NAME} is an archive in the folder of --data.
MORE = {
    "Fashion-MNIST": [
        "model=mlp data=fashion_mnist trainer.epochs=10",
        "model=cnn data=fashion_mnist trainer.epochs=15",
        "model=vgg data=fashion_mnist trainer.epochs=12 reg=augmentation reg.augmentation.crop=2",
        "model=resnet data=fashion_mnist trainer.epochs=12 reg=augmentation",
        "model=vit data=fashion_mnist trainer.epochs=14",
    ],
    "Real data": [
        "experiment=fcn_camvid data.path={camvid_240x180.tar.gz}",
        "experiment=faster_rcnn_bccd data.path={bccd_voc.tar.gz}",
        "experiment=yolo_bccd data.path={bccd_voc.tar.gz}",
        "experiment=gpt_shakespeare data.path={tinyshakespeare.txt}",
        "experiment=lstm_shakespeare data.path={tinyshakespeare.txt}",
    ],
}


@dataclass(frozen=True)
class Job:
    """A command from one seed. A claim has seeds of its own."""

    section: str
    words: str
    seed: int | None = None
    data: Path | None = None

    @property
    def name(self) -> str:
        words = re.sub(r"[{}]", "", self.words)
        return re.sub(r"[^\w.]+", "-", words) + ("" if self.seed is None else f"-{self.seed}")

    @property
    def command(self) -> str:
        return "dlx train " + re.sub(r"[{}]", "", self.words)

    @property
    def call(self) -> str:
        """The command with its seed."""
        return self.command + ("" if self.seed is None else f" seed={self.seed}")

    @property
    def overrides(self) -> list[str]:
        words = re.sub(r"\{(.*?)\}", lambda found: str((self.data or Path()) / found[1]), self.words)
        return [*shlex.split(words), *([] if self.seed is None else [f"seed={self.seed}"])]


def jobs(seeds: int, data: Path | None) -> Iterator[Job]:
    """All of the course, the first seed of everything first."""
    shown = [(each.title, one) for each in lectures() for one in each.shows]
    systems = [Job(title, one.words) for title, one in shown if one.group != "experiment"]
    for section, lines in MORE.items():
        systems += [Job(section, words, data=data) for words in lines if _has_data(words, data)]
    claims = [Job(title, one.words) for title, one in shown if one.group == "experiment"]
    for seed in range(seeds):
        yield from (replace(job, seed=seed) for job in systems)
        yield from claims if seed == 0 else ()


def _has_data(words: str, data: Path | None) -> bool:
    needed = re.findall(r"\{(.*?)\}", words)
    if needed:
        return data is not None and all((data / name).exists() for name in needed)
    return FASHION.exists()


@cache
def composed(job: Job) -> Config:
    with COMPOSING:
        return compose(job.overrides)


def fingerprint(config: Config) -> str:
    """Of a configuration and the source files of its model, data, regularizers, method or claim: another one may give
    another result. The loop, checkpoints and schedules are left out, or all would be out of date after every change."""
    values = {key: value for key, value in config.values.items() if key not in ("name", "output_root")}
    pairs = [(key, value) for key, value in flatten(values) if key not in ("dataset.path", "trainer.threads")]
    named = [(key, value) for key, value in pairs if not key.startswith(("trainer.", "scheduler."))]
    modules = {str(value).rpartition(".")[0] for key, value in named if key.endswith("_target_")}
    files = [path for name in sorted(modules) if (path := ROOT / f"{name.replace('.', '/')}.py").is_file()]
    plain = json.loads(json.dumps(sorted(pairs), default=str), parse_int=float)  # 0 and 0.0 are one value
    text = json.dumps(plain) + "".join(path.read_text(encoding="utf-8") for path in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def left(job: Job, results: Path) -> bool:
    """Whether there is no result of this job, or one that is out of date or failed."""
    path = results / f"{job.name}.json"
    if not path.is_file():
        return True
    record = json.loads(path.read_text(encoding="utf-8"))
    return record["status"] != "finished" or record["fingerprint"] != fingerprint(composed(job))


def newest(job: Job, runs: Path) -> Path | None:
    """The newest run folder of a job. Folders lie below the fingerprint that they were started with: what was trained
    with other source files is not found."""
    folders = sorted(path.parent for path in (runs / job.name / fingerprint(composed(job))).glob("*/config.yaml"))
    return folders[-1] if folders else None


def run(job: Job, results: Path, runs: Path) -> dict[str, Any] | None:
    """Trains, or goes on with what was cut off, and writes the result. None if there is none: another call trains it,
    or it was interrupted."""
    (runs / "logs").mkdir(parents=True, exist_ok=True)
    with (runs / "logs" / f"{job.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        return _run(job, results, runs) if left(job, results) else None


def _run(job: Job, results: Path, runs: Path) -> dict[str, Any] | None:
    folder = newest(job, runs)
    status = find_object(folder / "status.json").get("status") if folder else None
    started, cpu_seconds, code = time.time(), None, 0
    if status != "finished":
        resumes = folder is not None and status in ("running", "interrupted")
        own = [f"name={fingerprint(composed(job))}", f"output_root={runs / job.name}"]
        words = ["resume", str(folder)] if resumes else ["train", *job.overrides, *own]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with (runs / "logs" / f"{job.name}.txt").open("w") as log:
            command = [sys.executable, "-m", "dlx", *words]
            child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT)
            CHILDREN.add(child)
            _, ended, usage = os.wait4(child.pid, 0)
            CHILDREN.discard(child)
        code = child.returncode = os.waitstatus_to_exitcode(ended)
        if code in NO_RESULT:
            return None
        cpu_seconds = None if resumes else round(usage.ru_utime + usage.ru_stime, 1)
        folder = newest(job, runs)
    record = _record(job, folder, code, runs)
    record["seconds"] = record.get("seconds") or round(time.time() - started, 1)
    record["cpu_seconds"] = cpu_seconds
    results.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False)
    write_atomic(results / f"{job.name}.json", text + "\n")
    return record


def _record(job: Job, folder: Path | None, code: int, runs: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "section": job.section,
        "command": job.command,
        "seed": job.seed,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "fingerprint": fingerprint(composed(job)),
        "status": "failed",
    }
    if folder is None:
        lines = (runs / "logs" / f"{job.name}.txt").read_text(encoding="utf-8").splitlines()
        return {**found, "reason": next((line for line in reversed(lines) if line.strip()), f"exit code {code}")}
    summary, status, environment = (
        find_object(folder / f"{name}.json") for name in ("summary", "status", "environment")
    )
    found |= {"status": status.get("status", "failed"), "versions": environment.get("versions")}
    if status.get("reason"):
        found["reason"] = status["reason"]
    if members := [find_object(path).get("seconds") for path in folder.glob("runs/**/summary.json")]:
        found["seconds"] = round(sum(seconds for seconds in members if seconds), 1)
    if "held" in summary:
        counts = {"members": len(summary["members"]), "failed": len(summary["reasons"])}
        return {**found, "held": summary["held"], "verdict": summary["verdict"], **counts}
    metrics = summary["members"][0]["metrics"] if isinstance(summary.get("members"), list) else summary
    return {
        **found,
        "metrics": _metrics(metrics),
        **{key: summary[key] for key in ("seconds", "parameters", "steps") if key in summary},
    }


def _metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Those of the test split; where a system has none, those of the validation or the training."""
    numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
    for split in ("test/", "val/", "train/"):
        if chosen := {
            key: value for key, value in numbers.items() if key.startswith(split) and "/throughput" not in key
        }:
            return chosen
    return {}


def line(job: Job, record: Mapping[str, Any]) -> str:
    """What is said of a result when it comes."""
    if record["status"] != "finished":
        what = f"{record['status']}: {record.get('reason')}"
    elif "held" in record:
        what = f"{'held' if record['held'] else 'did not hold'}: {record['verdict']}"
    else:
        what = "  ".join(f"{key} {value:.4g}" for key, value in list(record["metrics"].items())[:4])
    return f"{job.call}  {record['cpu_seconds'] or record['seconds']:.0f} s  {what}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="a regular expression that the command must have")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each system")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="at a time, each on one thread")
    parser.add_argument("--data", type=Path, default=os.environ.get("DLX_TEST_DATA"), help="folder of real data")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--runs", type=Path, default=RUNS)
    parser.add_argument("--tables", action="store_true", help="train nothing")
    parser.add_argument("--dry-run", action="store_true", help="print what would be trained")
    given = parser.parse_args()
    page = given.results.with_suffix(".md")
    if given.tables:
        write_tables(given.results, page)
        return 0
    chosen = [job for job in jobs(given.seeds, given.data) if re.search(given.only, job.command)]
    todo = [job for job in chosen if left(job, given.results)]
    say(f"{len(todo)} of {len(chosen)} results are missing or out of date")
    if given.dry_run:
        say("\n".join(job.call for job in todo))
        return 0
    failed = 0
    columns = (TextColumn("course"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(given.jobs) as pool:
        bar = progress.add_task("", total=len(todo))
        running = {pool.submit(run, job, given.results, given.runs): job for job in todo}
        try:
            for future in as_completed(running):
                record = future.result()
                progress.advance(bar)
                if record is None:
                    continue
                failed += record["status"] != "finished"
                progress.console.print(line(running[future], record), markup=False, highlight=False, soft_wrap=True)
                write_tables(given.results, page)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in list(CHILDREN):  # each saves a checkpoint and leaves
                child.send_signal(signal.SIGINT)
            say("interrupted; the same command goes on")
            return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
