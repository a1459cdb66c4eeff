"""One run of a study: what is called with what, where it writes, and what it waits for."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.study.plan import Phase
from benchmark.study.search import LR_FLAG, Beyond, Search
from benchmark.study.tool import Job
from engine.config import micro_batches
from engine.records.record import RunRecord

PHASES: tuple[Phase, ...] = (
    "data", "tokenizer", "pretrain-search", "pretrain-probe", "pretrain", "search", "transfer",
)  # fmt: skip

SEARCHES: tuple[Phase, ...] = ("pretrain-search", "search")
"""Of runs that tell all that they will by a loss that becomes infinite too."""

MEASURED = "normalisation"  # of a configuration with `statistics`


@dataclass(frozen=True, kw_only=True)
class Run:
    """One call of a tool."""

    name: str
    tool: str
    """Name of the tool, a key of the suite's tools."""
    recipe: str | None
    job: Job | None
    """What it is called with, without a learning rate that is searched; None where that makes no configuration."""
    fault: str | None = None
    """Why it makes none."""
    out: Path
    """Folder that it writes to."""
    logs: Path
    """Folder of what it prints."""
    phase: Phase
    kind: str
    """Runs of one kind take about the same time."""
    task: str | None = None
    """Of a search or a transfer."""
    arm: str | None = None
    pretrain_seed: int | None = None
    """Of a pre-training, and of the one that a search or transfer starts from; None where the arm has one alone."""
    data: Path | None = None
    """Folder of its data set, as in argv; None where it takes none."""
    init: Path | None = None
    """Checkpoint that it starts from, as in argv."""
    inputs: tuple[Path, ...] = ()
    """Files and folders that no run of the study makes."""
    needs: tuple[str, ...] = ()
    """Names of runs that must have succeeded before."""
    search: Search | None = None
    """Chooses its learning rate."""
    beyond: Beyond | None = None
    """When it is run, for a learning rate beyond the grid of a search; None for always."""
    records: tuple[Path, ...]
    """Folders of the records that it leaves, the last one written last."""
    seconds: float | None = None
    """About how long it takes, as the study states: the ETA until a run of its kind has been timed."""

    @property
    def log(self) -> Path:
        """File that holds what it prints."""
        return self.logs / f"{self.name}.log"

    @property
    def settings(self) -> dict[str, Any] | None:
        """The configuration that its record would hold; None where it leaves none."""
        return None if self.job is None else self.job.settings

    @property
    def command(self) -> tuple[str, ...]:
        """The words of its command line, behind the tool's name."""
        return () if self.job is None else tuple(self.job.command())


def settled(run: Run, record: RunRecord) -> dict[str, Any]:
    """Return the settings of a run, as JSON has them, with what the start of the recorded one has added to its own.

    That is the mean and std of its images, where the run computes these, and the micro-batches of as many processes.
    """
    assert run.job is not None
    wanted: dict[str, Any] = json.loads(json.dumps(run.settings))
    if wanted.get("statistics") is True and wanted.get(MEASURED) is None:
        wanted[MEASURED] = record.config.get(MEASURED)
    most = getattr(run.job.args, "max_per_device", None)
    if most is not None and wanted["run"]["batch_size"] % record.world_size == 0:
        wanted["run"]["accumulate"] = micro_batches(wanted["run"]["batch_size"], most, record.world_size)
    return wanted


def checked(run: Run) -> Run:
    """Return the run, with a fault where it cannot have a learning rate that its search may choose."""
    if run.search is None or run.fault is not None:
        return run
    try:
        with_lr(run, run.search.grid[0][0])
    except ValueError as error:
        return replace(run, fault=str(error).rstrip("."))
    return run


def with_lr(run: Run, lr: float) -> Run:
    """Return a run with the learning rate that its search has chosen. Raises ValueError where it cannot have it."""
    assert run.job is not None
    return replace(run, job=run.job.with_option(LR_FLAG, lr))
