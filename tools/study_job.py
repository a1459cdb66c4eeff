"""One run of a study as a cluster's job, which SLURM carries out. It is not to be called by hand: this hands it in.

python tools/run_benchmark.py STUDY --launcher slurm
"""

import os
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.runner.scheduler import Suite
from benchmark.study.prepare import COPY, prepare
from benchmark.study.sections import Cluster
from benchmark.study.tool import Tool
from engine.flags import command_line
from engine.launch import fail, parse
from tools.run_benchmark import TOOLS

PORTS = range(20_000, 30_000)  # below those that Linux gives to connections that leave (32,768 and above)


@dataclass
class StudyJob:
    """Called with the name of a run; pickled by submitit, and called anew when the job was queued again."""

    out: Path
    """Folder of the study, absolute."""
    root: Path
    """Folder that the study's paths start from, absolute."""
    cluster: Cluster
    """What a job asks for; with more than one GPU or node torchrun starts the processes of a training run."""
    trust_pickle: bool = False
    """Whether the command line that handed the study in trusts the pickles that the study declares."""
    suite: Suite | None = None

    def __call__(self, name: str) -> str:
        """Carry out a run and return how it ended. Raises RuntimeError where it has no result."""
        many = max(self.cluster.gpus, self.cluster.nodes) > 1
        tools = {key: _by_torchrun(key, tool, self.cluster) for key, tool in TOOLS.items()} if many else TOOLS
        made = prepare(
            str(self.out / COPY),
            tools,
            studies=self.out,
            out=self.out,
            root=self.root,
            trust_pickle=self.trust_pickle,
        )
        self.suite = Suite(tools, Console())
        outcome = self.suite.carry_one(name, made.runs, self.out)
        if not outcome.good:
            raise RuntimeError(f"{name}: {outcome.status}: {outcome.error}")
        return f"{name}: {outcome.status}"

    def checkpoint(self, name: str) -> Any:
        """Have the run saved and return the job to be queued again: SLURM's time is nearly up."""
        import submitit

        if self.suite is not None:
            self.suite.save_and_leave()
        return submitit.helpers.DelayedSubmission(replace(self, suite=None), name)


def launcher(cluster: Cluster, *, host: str, job: int) -> list[str]:
    """Return the command, without the script, that starts a tool's processes on every node of a job.

    `host` is the name of the job's first node, where the processes of several nodes find each other, at a port that
    follows from the number of the `job`, as several jobs may share a node.
    """
    processes = f"--nproc-per-node={max(1, cluster.gpus)}"
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    if cluster.nodes == 1:
        return [*torchrun, "--standalone", processes]
    nodes = f"--nodes={cluster.nodes}"
    step = ["srun", nodes, f"--ntasks={cluster.nodes}", "--ntasks-per-node=1", f"--cpus-per-task={cluster.cpus}"]
    step += [f"--gpus-per-node={cluster.gpus}"] if cluster.gpus else []
    # the job's own task holds the first node's resources, which the step shares
    step += ["--overlap", "--kill-on-bad-exit=1"]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint={host}:{PORTS.start + job % len(PORTS)}", f"--rdzv-id={job}"]
    return [*step, *torchrun, f"--nnodes={cluster.nodes}", processes, *meeting]


def _by_torchrun(name: str, tool: Tool, cluster: Cluster) -> Tool:
    """Return a training tool that replaces its process by torchrun; other tools as they are."""
    if name != "pretrain" and not name.startswith("train_"):
        return tool
    script = str(Path(__file__).with_name(f"{name}.py"))

    def run(args: Any, config: Any) -> int:
        words = command_line(args, config, tool.recipes[args.recipe]())
        host, job = os.environ.get("SLURMD_NODENAME", socket.gethostname()), int(os.environ.get("SLURM_JOB_ID", "0"))
        command = [*launcher(cluster, host=host, job=job), script, *words]
        os.execvp(command[0], command)

    return replace(tool, run=run)


@dataclass(frozen=True)
class NoFlags:
    """There are none."""


if __name__ == "__main__":
    parse(NoFlags, None, doc=__doc__)
    raise SystemExit(fail(ValueError("not to be called by hand; see --help.")))
