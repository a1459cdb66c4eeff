"""One run of a study as a cluster's job. Not a command: `tools/run_benchmark.py STUDY --launcher slurm` hands it in."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmark.runner.scheduler import Suite
from benchmark.study.prepare import COPY, prepare
from benchmark.study.tool import Tool
from engine.flags import command_line
from tools.run_benchmark import TOOLS


@dataclass
class StudyJob:
    """Called with the name of a run; pickled by submitit, and called anew when the job was queued again."""

    out: Path
    """Folder of the study, absolute."""
    root: Path
    """Folder that the study's paths start from, absolute."""
    gpus: int
    """Processes of a training run; with more than one torchrun starts them."""
    trust_pickle: bool = False
    """Whether the command line that handed the study in trusts the pickles that the study declares."""
    suite: Suite | None = None

    def __call__(self, name: str) -> str:
        """Carry out a run and return how it ended. Raises RuntimeError where it has no result."""
        tools = TOOLS if self.gpus < 2 else {key: _by_torchrun(key, tool, self.gpus) for key, tool in TOOLS.items()}
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


def _by_torchrun(name: str, tool: Tool, processes: int) -> Tool:
    """Return a training tool that replaces its process by torchrun; other tools as they are."""
    if name != "pretrain" and not name.startswith("train_"):
        return tool
    script = str(Path(__file__).with_name(f"{name}.py"))

    def run(args: Any, config: Any) -> int:
        words = command_line(args, config, tool.recipes[args.recipe]())
        command = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", script, *words]
        os.execv(sys.executable, [sys.executable, *command])

    return replace(tool, run=run)
