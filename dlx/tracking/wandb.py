"""Weights & Biases: online where there is a key and a network, else an offline run that `wandb sync` sends later."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlparse

from dlx.tracking.tracker import Tracker

if TYPE_CHECKING:
    from dlx.runs.folder import RunFolder

PROBE_SECONDS = 2.0
FINISH_SECONDS = 45


def has_key() -> bool:
    """Whether the client would find an API key; it is never asked itself, because it may prompt and wait for ever."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    import netrc

    host = urlparse(_base_url()).hostname or ""
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _base_url() -> str:
    return os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")


def is_reachable() -> bool:
    """Whether the server answers a connection within seconds: the client itself would wait 103 s, measured."""
    url = urlparse(_base_url())
    port = url.port or (80 if url.scheme == "http" else 443)
    try:
        socket.create_connection((url.hostname or "", port), timeout=PROBE_SECONDS).close()
    except OSError:
        return False
    return True


class Wandb(Tracker):
    """mode: auto is online where a key and the server are there, else offline."""

    def __init__(
        self,
        *,
        project: str = "dlx",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        group: str | None = None,
        tags: list[str] | None = None,
        notes: str | None = None,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode
        self.group, self.tags, self.notes = group, tags, notes
        self.run: Any = None

    def _choose_mode(self) -> Literal["online", "offline"]:
        if self.mode == "offline" or os.environ.get("WANDB_MODE") in ("offline", "dryrun", "disabled"):
            return "offline"
        missing = "no API key" if not has_key() else "no connection" if not is_reachable() else None
        if missing is None:
            return "online"
        self.warn(f"wandb: {missing}, so this run is offline; `wandb sync` sends it later")
        return "offline"

    def start(self, run: RunFolder, config: dict[str, Any]) -> None:
        mode = self._choose_mode()
        import wandb

        # The command line is left out (x_disable_meta): it may hold secrets, and W&B would store it.
        settings = wandb.Settings(
            x_disable_meta=True, init_timeout=20, finish_timeout=FINISH_SECONDS, console="off", silent=True
        )
        self.run = wandb.init(
            project=self.project, entity=self.entity, mode=mode, group=self.group, tags=self.tags, notes=self.notes,
            dir=str(run.path), id=run.name, name=run.name, resume="allow", config=config, job_type="train",
            settings=settings,
        )  # fmt: skip
        self.run.define_metric("*", step_metric="step")
        monitored = {"accuracy": "max", "loss": "min"}
        for name, goal in monitored.items():
            self.run.define_metric(f"val/{name}", step_metric="step", summary=goal)

    def log(self, step: int, scalars: dict[str, float]) -> None:
        self.run.log({"step": step, **scalars})

    def log_media(self, step: int, name: str, path: str) -> None:
        import wandb

        self.run.log({"step": step, f"media/{name}": wandb.Image(path)})

    def finish(self, status: str, summary: dict[str, Any]) -> None:
        if self.run is None:
            return
        self.run.summary.update({"status": status, **summary})
        self.run.finish(exit_code=0 if status == "finished" else 1)
