"""Writes docs/results.md from the small files in docs/results/, so that no figure in it is typed by hand."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dlx.config.course import lectures
from dlx.runs.files import write_atomic

HEAD = """# Results

What `make course` measured: each command on its defaults, one thread a training, on shared x86-64 cores; seconds are of
the processor where that was known. Figures are of the test split, evaluated once with the best weights; mean ± standard
deviation where there are several seeds. `docs/results/` holds them as data, and this page is made from it. What was
tried beside it is in [findings.md](findings.md).
"""

# What the papers report; other data and sizes than the defaults' here.
PAPERS = {
    "alexnet": "18.2 % top-5 error on ImageNet",
    "vgg": "10.4 % top-5 error on ImageNet",
    "nin": "8.81 % error on CIFAR-10",
    "googlenet": "10.07 % top-5 error on ImageNet",
    "resnet": "8.75 % error on CIFAR-10",
    "densenet": "5.24 % error on CIFAR-10",
    "vit": "77.9 % on ImageNet alone",
    "fcn": "62.2 mIoU on VOC 2012",
    "rcnn": "58.5 mAP on VOC 2007",
    "sppnet": "59.2 mAP on VOC 2007",
    "fast_rcnn": "66.9 mAP on VOC 2007",
    "faster_rcnn": "69.9 mAP on VOC 2007",
    "yolo": "63.4 mAP on VOC 2007",
    "transformer": "27.3 BLEU on WMT 2014, English to German",
    "nade": "88.33 nats on binarized MNIST",
    "pixel_cnn": "81.30 nats on binarized MNIST",
    "pixel_rnn": "79.20 nats on binarized MNIST",
    "infogan": "5 % error of the code on MNIST",
    "simclr": "69.3 % on ImageNet, linear probe",
}
MOST = 4  # figures of a system

Record = dict[str, Any]


def write_tables(results: Path, page: Path) -> None:
    records = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(results.glob("*.json"))]
    order = [each.title for each in lectures()]
    sections = sorted({record["section"] for record in records}, key=lambda name: (_place(order, name), name))
    places = {shown.command: place for each in lectures() for place, shown in enumerate(each.shows)}
    parts = [HEAD]
    for section in sections:
        own = [record for record in records if record["section"] == section]
        own.sort(
            key=lambda record: (places.get(record["command"], len(places)), record["command"], record["seed"] or 0)
        )
        parts.append(f"## {section}\n")
        runs = _by_command([record for record in own if record["status"] == "finished" and "metrics" in record])
        if runs:
            parts.append(_runs_table(runs))
        if claims := [record for record in own if record["status"] == "finished" and "held" in record]:
            parts.append(_claims_table(claims))
        if failed := [record for record in own if record["status"] != "finished"]:
            lines = [f"`{_call(record)}` {record['status']}: {record.get('reason')}" for record in failed]
            parts.append("\n".join(lines) + "\n")
    write_atomic(page, "\n".join(parts))


def _runs_table(runs: dict[str, list[Record]]) -> str:
    papers = {command: PAPERS.get(command.partition("model=")[2], "") for command in runs}
    head, rule = "| command | seeds | test | seconds | parameters |", "|---|---|---|---|---|"
    if any(papers.values()):
        head, rule = f"{head} the paper's figure |", f"{rule}---|"
    rows = [head, rule]
    for command, own in runs.items():
        seconds = statistics.mean(record["cpu_seconds"] or record["seconds"] for record in own)
        parameters = f"{own[0]['parameters']:,}" if own[0].get("parameters") else ""
        row = f"| `{command}` | {len(own)} | {_figures(own)} | {seconds:,.0f} | {parameters} |"
        rows.append(f"{row} {papers[command]} |" if any(papers.values()) else row)
    return "\n".join(rows) + "\n"


def _claims_table(claims: list[Record]) -> str:
    rows = ["| claim | held | what was found | trainings | seconds |", "|---|---|---|---|---|"]
    for record in claims:
        verdict = record["verdict"].replace("|", "\\|")
        seconds = record["cpu_seconds"] or record["seconds"]
        held = "yes" if record["held"] else "**no**"
        rows.append(f"| `{record['command']}` | {held} | {verdict} | {record['members']} | {seconds:,.0f} |")
    return "\n".join(rows) + "\n"


def _figures(records: Sequence[Record]) -> str:
    """The first figures, without the loss where there is more to say."""
    keys = [key for key in records[0]["metrics"] if not key.endswith("_std")]
    others = [key for key in keys if key.rpartition("/")[2] != "loss"]
    found = []
    for key in (others or keys)[:MOST]:
        values = [record["metrics"][key] for record in records if key in record["metrics"]]
        error = statistics.stdev(values) if len(values) > 1 else records[0]["metrics"].get(f"{key}_std")
        mean = f"{key.removeprefix('test/')} {_digits(statistics.mean(values))}"
        found.append(f"{mean} ± {_digits(error)}" if error else mean)
    return ", ".join(found)


def _digits(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def _by_command(records: Sequence[Record]) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(record["command"], []).append(record)
    return found


def _call(record: Record) -> str:
    return record["command"] + ("" if record["seed"] is None else f" seed={record['seed']}")


def _place(order: Sequence[str], section: str) -> int:
    return order.index(section) if section in order else len(order)
