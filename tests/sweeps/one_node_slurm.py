"""A real Slurm of one node, in a folder of its own beside whatever the machine has: munged, slurmctld and slurmd."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
CPUS = 4  # whatever the machine has: members wait for each other in the tests

CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,sched_min_interval=0,batch_sched_delay=0,bf_interval=1
ReturnToService=2
KillWait=15
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=60 State=UP
"""


def why_not() -> str | None:
    """What is missing here, or nothing."""
    missing = [name for name in DAEMONS if shutil.which(name, path=_path()) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return None if os.geteuid() == 0 else "not root"


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class OneNodeSlurm:
    """Starts in `folder` (short: it holds sockets). `environment` is for whoever submits."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.processes = folder, []
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(folder=folder, host=host, ports=_free_ports(2), cpus=CPUS)
        (folder / "slurm.conf").write_text(text)
        key = folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        try:
            files = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "seed"}
            self._start("munged", "--foreground", *(f"--{key}={folder / name}" for key, name in files.items()))
            self._wait("munge", lambda: (folder / "munge.socket").exists())
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", host)
            self._wait("the node", lambda: "idle" in self.ask("sinfo", "-h", "-o", "%T"))
        except BaseException:
            self.stop()
            raise

    def _start(self, name: str, *words: str) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            program = shutil.which(name, path=_path())
            environment = {**os.environ, **self.environment}
            self.processes.append(subprocess.Popen([program, *words], env=environment, stdout=log, stderr=log))

    def _wait(self, what: str, ready) -> None:
        deadline = time.monotonic() + 20
        while not ready():
            if time.monotonic() > deadline:
                logs = "".join(path.read_text(errors="replace")[-500:] for path in self.folder.glob("*.log"))
                raise TimeoutError(f"Slurm: {what} did not come up\n{logs}")
            time.sleep(0.1)

    def ask(self, *words: str) -> str:
        """What a command of Slurm's says."""
        done = subprocess.run(
            words, env={**os.environ, **self.environment}, capture_output=True, text=True, check=False
        )
        return done.stdout

    def _end_jobs(self) -> None:
        """A job whose result is there may still be ending; without the daemons it would wait for them for ever."""
        deadline = time.monotonic() + 20
        while (jobs := self.ask("squeue", "-h", "-o", "%A").split()) and time.monotonic() < deadline:
            if time.monotonic() > deadline - 10:
                self.ask("scancel", *jobs)
            time.sleep(0.1)

    def stop(self) -> None:
        if len(self.processes) == len(DAEMONS):
            self._end_jobs()
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
