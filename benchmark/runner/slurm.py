"""A study's runs as SLURM arrays, one for each phase, each waiting for the one before; through submitit.

A job runs one run as the suite does: it skips what is recorded and resumes what was interrupted, so that SLURM may
queue it again at any time. A phase starts when the jobs of the one before have ended, well or not; a run whose needs
have failed says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmark.runner.scheduler import Suite
from benchmark.study.prepare import Prepared
from benchmark.study.run import PHASES, Run
from benchmark.study.sections import Cluster

FOLDER = "slurm"
MOST_TIMEOUTS = 100  # how often a job that reaches its limit is queued again


def submit(made: Prepared, suite: Suite, job: Any, *, executor: Callable[[Path], Any] | None = None) -> str:
    """Hand the runs that have no result yet to SLURM and return what was handed in.

    `job` is called with the name of a run; `executor` makes the submitter, SLURM's unless given. Raises ValueError
    where submitit or SLURM is not there, and where a finished run has other settings than the study's file has now.
    """
    if (why := suite.others(made.runs)) is not None:
        raise ValueError(why)
    folder = made.out.resolve() / FOLDER
    submitter = (executor or _slurm)(folder)
    before: str | None = None
    lines = []
    for phase in PHASES:
        todo = [run for run in made.runs if run.phase == phase and _due(run) and not suite.is_there(run, made.runs)]
        if not todo:
            continue
        submitter.update_parameters(**parameters(made.study.cluster, f"{made.study.name}-{phase}", after=before))
        jobs = submitter.map_array(job, [run.name for run in todo])
        before = _array(jobs)
        lines.append(f"{phase}: {_count(todo)} as array {before}, output in {folder}")
    if not lines:
        return f"{made.out}: every run has its result; python tools/export_tables.py {made.out} prints the tables."
    return "\n".join(
        [*lines, "When they have ended: the same command for what is left, tools/export_tables.py for the tables."]
    )


def parameters(cluster: Cluster, name: str, *, after: str | None) -> dict[str, Any]:
    """Return submitit's parameters of an array of jobs that starts when the jobs of array `after` have ended."""
    found: dict[str, Any] = {
        "name": name,
        "timeout_min": round(60 * cluster.hours),
        "cpus_per_task": cluster.cpus,
        "mem_gb": cluster.memory_gb,
        "slurm_array_parallelism": cluster.at_once,
    }
    if cluster.nodes > 1:
        # the job is one task, on the first node; the tool that trains is started on all of them (tools/study_job.py)
        found |= {"nodes": cluster.nodes, "tasks_per_node": 1, "slurm_srun_args": ["--nodes=1", "--ntasks=1"]}
    if cluster.gpus:
        found["gpus_per_node"] = cluster.gpus
    for key, value in (("slurm_partition", cluster.partition), ("slurm_account", cluster.account)):
        if value is not None:
            found[key] = value
    # submitit keeps what was set for the array before, so the first array says that it waits for none
    return {**found, "slurm_dependency": None if after is None else f"afterany:{after}"}


def _due(run: Run) -> bool:
    """Return whether a run is asked for: beyond a grid of learning rates that is known when its search has ended."""
    return run.beyond is None or run.beyond.wanted() is not None


def _slurm(folder: Path) -> Any:
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            "--launcher slurm needs submitit, which is not installed: pip install submitit "
            "(in a checkout: .venv/bin/pip install -e '.[slurm]')."
        ) from error
    try:
        return submitit.AutoExecutor(folder=folder, cluster="slurm", slurm_max_num_timeout=MOST_TIMEOUTS)
    except RuntimeError as error:
        raise ValueError(
            f"--launcher slurm: {error} Run it where sbatch and srun are, or use --launcher local."
        ) from error


def _array(jobs: Sequence[Any]) -> str:
    return str(jobs[0].job_id).partition("_")[0]


def _count(runs: Sequence[Run]) -> str:
    return "1 run" if len(runs) == 1 else f"{len(runs)} runs"
