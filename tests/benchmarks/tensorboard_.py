"""The same long runs as `dashboard.py`, in TensorBoard: until it answers, has them all, and gives the curves of 50.

    pip install tensorboard; python tests/benchmarks/tensorboard_.py         1,000 runs of 10,000 rows: 2 GB in $TMPDIR

TensorBoard keeps 1,000 points of a figure, drawn at random; dlx all, of which it sends the least and the greatest of
each pixel. Asked over HTTP as its page asks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import numpy as np
from dashboard import BODIES, FIGURES, body, memory, show

PATIENCE = 600.0  # seconds for it to have read all runs


def events(rows: int, seed: int, folder: Path) -> bytes:
    """An event file with the figures of `dashboard.body`."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.record_writer import RecordWriter

    path = folder / f"body-{seed}"
    with path.open("wb") as file:
        writer = RecordWriter(file)
        writer.write(Event(wall_time=1.79e9, file_version="brain.Event:2").SerializeToString())
        for line in body(rows, seed).splitlines():
            row = json.loads(line)
            values = [Summary.Value(tag=name, simple_value=row[name]) for name in FIGURES]
            event = Event(wall_time=row["time"], step=row["step"], summary=Summary(value=values))
            writer.write(event.SerializeToString())
    return path.read_bytes()


def ask(address: str, form: dict[str, str] | None = None) -> tuple[float, bytes]:
    begin = time.perf_counter()
    data = urllib.parse.urlencode(form).encode() if form else None
    with urllib.request.urlopen(address, data=data) as answer:
        found = answer.read()
    return time.perf_counter() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=10_000)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="dlx-tensorboard-"))
    try:
        bodies = [events(options.rows, number, folder) for number in range(BODIES)]
        for number in range(options.runs):
            run = folder / "logs" / f"group{number % 20}" / f"20261101-{number:06d}-mlp-{number:04x}"
            run.mkdir(parents=True)
            (run / f"events.out.tfevents.1790000000.host.{number}.0").write_bytes(bodies[number % BODIES])
        size = sum(path.stat().st_size for path in (folder / "logs").rglob("events*"))
        show(f"{options.runs} runs of {options.rows} rows of {len(FIGURES)} figures: {size / 1e9:.2f} GB")
        measure(folder / "logs", options.runs)
    finally:
        shutil.rmtree(folder)


def measure(logs: Path, runs: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.perf_counter()
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(logs), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = f"http://127.0.0.1:{port}"
        while time.perf_counter() - begin < PATIENCE:
            try:
                ask(f"{address}/data/runs")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.05)
        show(f"server up {time.perf_counter() - begin:.2f} s")
        known = 0
        while known < runs and time.perf_counter() - begin < PATIENCE:
            known = len(json.loads(ask(f"{address}/data/runs")[1]))
            time.sleep(0.1)
        show(f"{known} of {runs} runs listed after {time.perf_counter() - begin:.1f} s")
        whole = 0
        while whole < runs and time.perf_counter() - begin < PATIENCE:
            tags = json.loads(ask(f"{address}/data/plugin/scalars/tags")[1])
            whole = sum(len(found) == len(FIGURES) for found in tags.values())
            time.sleep(0.5)
        show(f"{whole} of {runs} runs have their figures after {time.perf_counter() - begin:.1f} s")
        names = sorted(json.loads(ask(f"{address}/data/runs")[1]))[:50]
        form = {"tag": "train/loss"}
        times = []
        for _ in range(4):
            data = urllib.parse.urlencode([*form.items(), *(("runs", name) for name in names)]).encode()
            at = time.perf_counter()
            with urllib.request.urlopen(f"{address}/data/plugin/scalars/scalars_multirun", data=data) as answer:
                found = answer.read()
            times.append(time.perf_counter() - at)
        points = np.mean([len(points) for points in json.loads(found).values()])
        show(
            f"50 curves: first {times[0]:.3f} s, again {min(times[1:]):.3f} s "
            f"({len(found) / 1e6:.1f} MB, {points:.0f} points each)"
        )
        children = subprocess.run(["pgrep", "-P", str(server.pid)], capture_output=True, text=True, check=False)
        for pid in (server.pid, *map(int, children.stdout.split())):
            show(f"memory of process {pid}: {memory(pid)}")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait()


if __name__ == "__main__":
    main()
