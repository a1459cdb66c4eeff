"""What a study would run (--dry-run) and how far it is (--status), told from its plan and the records alone."""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from tabulate import tabulate

from benchmark.runner.progress import clock
from benchmark.runner.recorded import is_without_weights, needless, record_of, spoilt_outputs
from benchmark.study.run import SEARCHES, Run
from benchmark.study.search import has_diverged
from engine.records.record import standing

STATES = ("completed", "interrupted", "failed", "killed or still running", "killed", "running", "not started")
ADAMW_BYTES = 12  # float32 weight and two moments of each parameter in a resumable checkpoint
BLOCK = 12  # parameters of a ViT block, in squares of its width


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Runs of one kind."""

    phase: str
    what: str
    tool: str
    recipe: str
    runs: int
    done: int
    seconds: float | None
    """Of one run; None where nothing tells."""
    source: str
    """Where the seconds are from: recorded, stated, unknown."""
    disk_bytes: float | None
    """Of one run."""
    disk_source: str
    """measured, at least (checkpoints of the backbone alone), unknown."""


def outlooks(runs: Sequence[Run]) -> list[Outlook]:
    """Return what each kind of run would take, in the order of the phases."""
    kinds: dict[str, list[Run]] = {}
    for run in runs:
        kinds.setdefault(run.kind, []).append(run)
    return [_outlook(mine, runs) for mine in kinds.values()]


def dry_run_text(name: str, runs: Sequence[Run], out: Path) -> str:
    """Return the matrix as a table, with numbers of runs, hours and disk."""
    runs, beyond = _certain(runs)
    found = outlooks(runs)
    rows = [
        (
            item.phase,
            item.what,
            item.tool,
            item.recipe,
            item.runs,
            item.done,
            "unknown" if item.seconds is None else f"{clock(item.seconds)} ({item.source})",
            "unknown" if item.disk_bytes is None else f"{item.disk_bytes / 2**20:,.0f} ({item.disk_source})",
        )
        for item in found
    ]
    head = ("phase", "what", "tool", "recipe", "runs", "done", "time a run", "MiB a run")
    left = [(item, item.runs - item.done) for item in found if item.runs > item.done]
    seconds = sum((item.seconds or 0.0) * count for item, count in left)
    unknown = sum(count for item, count in left if item.seconds is None)
    bytes_left = sum((item.disk_bytes or 0.0) * count for item, count in left)
    free = shutil.disk_usage(next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())).free
    total = len(runs)
    return "\n".join(
        [
            f"Study {name}: {total} runs, {sum(item.done for item in found)} of them done, in {out}",
            "",
            tabulate(rows, head, tablefmt="simple", disable_numparse=True),
            "",
            f"Time left: {_time(seconds, unknown)} on one device.",
            f"Disk: about {bytes_left / 2**30:.1f} GiB or more for what is left; {free / 2**30:.1f} GiB are free.",
            *_grid_lines(runs),
            *_said_beyond(beyond),
        ]
    )


def status_text(name: str, runs: Sequence[Run]) -> str:
    """Return a line per run: completed, interrupted at a step, failed with its error, or not started."""
    runs, beyond = _certain(runs)
    states = [state_of(run, runs) for run in runs]
    counts = Counter(next(word for word in STATES if state.startswith(word)) for state in states)
    head = ", ".join(f"{count} {word}" for word, count in counts.most_common())
    lines = [(run.phase, run.name, state) for run, state in zip(runs, states, strict=True)]
    table = tabulate(lines, ("phase", "run", "state"), tablefmt="simple")
    return "\n\n".join((f"Study {name}: {len(runs)} runs: {head}", table, *_said_beyond(beyond)))


def state_of(run: Run, runs: Sequence[Run]) -> str:
    """Return what the records say of a run of `runs`."""
    if run.phase == "data":
        return "completed" if run.out.is_dir() else "not started"
    record = record_of(run)
    if (why := needless(run)) is not None and run.beyond is not None:
        return f"completed: {why}"
    if why is not None:
        return "completed: nothing to probe, the loss became infinite at this learning rate"
    if record is None:
        return "not started" if not run.log.is_file() else f"failed before its first step, see {run.log}"
    if record.status == "completed" and is_without_weights(run, record, runs):
        return "completed; its weights are gone"
    if spoilt := spoilt_outputs(run, record) if record.status == "completed" else []:
        return f"failed: {spoilt[0].rstrip('.')}; it is run again"
    if record.status == "completed":
        primary = record.metrics.get(record.primary_metric)
        return "completed" + ("" if primary is None else f": {record.primary_metric} {primary:.4g}")
    if run.phase in SEARCHES and has_diverged(record):
        return "completed: the loss became infinite at this learning rate"
    step = f"at step {record.steps} of {record.total_steps}"
    return f"{standing(run.out, record)} {step}" + (f": {record.error}" if record.error else "")


def _certain(runs: Sequence[Run]) -> tuple[list[Run], int]:
    """Return the runs without those beyond a grid of learning rates that are not asked for so far, and their number."""
    certain = [run for run in runs if run.beyond is None or run.beyond.wanted()]
    return certain, sum(run.beyond is not None and run.beyond.wanted() is None for run in runs)


def _said_beyond(count: int) -> list[str]:
    """Return what is said of runs that may be asked for."""
    if not count:
        return []
    return [f"Up to {count} runs more at wider grids, where the best learning rate of an arm is an end of its grid."]


def _outlook(mine: Sequence[Run], runs: Sequence[Run]) -> Outlook:
    first = mine[0]
    done = [run for run in mine if state_of(run, runs).startswith("completed")]
    took = [record.cost.total_seconds for run in done if (record := record_of(run)) is not None]
    sizes = [_size(run.out) for run in done]
    least = _checkpoint_bytes(first)
    arms = len({run.arm for run in mine if run.arm is not None})
    what = first.kind.partition(" ")[2] or first.kind
    return Outlook(
        phase=first.phase,
        what=f"{what}, {arms} arms" if arms > 1 else what,
        tool=first.tool,
        recipe=first.recipe or "",
        runs=len(mine),
        done=len(done),
        seconds=fmean(took) if took else first.seconds,
        source="recorded" if took else "stated",
        disk_bytes=fmean(sizes) if sizes else least,
        disk_source="measured" if sizes else "at least",
    )


def _checkpoint_bytes(run: Run) -> float | None:
    config = run.settings
    if config is None or not {"run", "backbone"} <= config.keys():
        return None
    vit: dict[str, Any] = config["backbone"]
    return float(config["run"]["keep_last"] * ADAMW_BYTES * BLOCK * vit["depth"] * vit["embed_dim"] ** 2)


def _size(folder: Path) -> float:
    return float(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink()))


def _time(seconds: float, unknown: int) -> str:
    known = f"about {clock(seconds)}"
    if not unknown:
        return known
    others = f", {known} for the others" if seconds else ""
    return f"unknown of {unknown} runs (the file may state `hours` of a task or a pre-training){others}"


def _grid_lines(runs: Sequence[Run]) -> list[str]:
    """Return the searches in words."""
    found = {}
    for run in runs:
        if run.search is not None:
            entries = zip(run.search.grid, run.search.whens(), strict=True)
            tried = [lr for (lr, _), when in entries if when is None or when.wanted()]
            rates = ", ".join(f"{lr:g}" for lr in sorted(tried))
            task, seed = run.search.task, run.search.seed
            whose = f"for {run.search.arm}" if run.phase == "pretrain" else "for every arm alike"
            found[task, whose] = f"Learning rates of {task}, searched {whose} with seed {seed}: {rates}."
    return [*found.values()]
