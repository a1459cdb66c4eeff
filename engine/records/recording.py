"""From the state of a run to its record."""

import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from backbones.weights.hub import name_of
from engine.config import RunConfig, as_json
from engine.device import device_name, peak_memory
from engine.records.metrics_file import Mark
from engine.records.own_files import digests
from engine.records.provenance import git_commit, library_versions
from engine.records.record import Cost, Evaluation, RunRecord, Status
from engine.records.results_file import ResultsFile
from engine.task import Task
from engine.training.resume import Progress


@dataclass(frozen=True, kw_only=True)
class Named:
    """What a run is called."""

    recipe: str
    run_id: str
    arm: str | None
    """What the initial weights are called in a comparison."""
    departures: tuple[str, ...]


@dataclass
class Written:
    """Files that this session of a run has left so far, relative to its folder, and what went wrong beside."""

    results: ResultsFile | None = None
    pictures: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    sha256: dict[str, str] = field(default_factory=dict)
    """Of files that are read again."""
    warnings: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Recorder:
    """Makes the record of a run at any moment of it."""

    task: Task
    config: Any
    """The task's whole configuration."""
    named: Named
    fabric: Fabric
    total_steps: int
    parameters: int
    written: Written = field(default_factory=Written)
    commit: str | None = field(default_factory=git_commit)
    began: float = field(default_factory=time.monotonic)
    earlier_seconds: float = 0.0
    """Wall clock of the sessions before this one."""

    @property
    def seconds(self) -> float:
        """Wall clock of all sessions so far."""
        return self.earlier_seconds + time.monotonic() - self.began

    def go_on(self, progress: Progress) -> list[str]:
        """Take over what the sessions before sum up to; return what this one cannot do as they did, as a warning."""
        self.earlier_seconds = progress.total_seconds
        here, before = precision_name(self.fabric), last_precision(progress.precision)
        if not progress.step or not before:
            progress.precision = here
        if not progress.step or before in ("", here):
            return []
        progress.precision += f" to step {progress.step}, then {here}"
        return [
            f"precision {here}, which `auto` is on this device, from step {progress.step} on; the steps before were "
            f"computed in {before}. To keep one precision, resume on a device as before."
        ]

    def finished(self, out: Path, outputs: list[Path], metrics: Mark) -> None:
        """Take down what the run has left in `out` at its end. Raises OSError for what cannot be read again."""
        self.written.outputs = relative(outputs, out)
        self.written.sha256 = digests(out, self.written.outputs, metrics)

    def record(self, progress: Progress, status: Status, error: str | None = None) -> RunRecord:
        """Return the record as things stand."""
        facts = self.task.facts
        run: RunConfig = self.config.run
        seen = progress.step * run.batch_size * facts.views_per_image
        seconds = progress.train_seconds
        results = self.written.results
        return RunRecord(
            run_id=self.named.run_id,
            task=self.task.name,
            recipe=self.named.recipe,
            arm=self.named.arm,
            status=status,
            seed=run.seed,
            steps=progress.step,
            total_steps=self.total_steps,
            samples_seen=seen,
            data=facts.data,
            train_split=facts.train_split,
            val_split=facts.val_split,
            train_images=facts.train_images,
            val_images=facts.val_images,
            data_notes=facts.data_notes,
            unreadable_images=tuple(f"{path}: {reason}" for path, reason in progress.unreadable.items()),
            architecture=facts.architecture,
            weights_source=facts.weights.source,
            weights_path=facts.weights.path,
            weights_sha256=facts.weights.sha256,
            weights_report=tuple(facts.weights.lines()),
            normalisation=facts.normalisation,
            primary_metric=self.task.primary_metric,
            metrics=dict(progress.evaluations[-1]["metrics"]) if progress.evaluations else {},
            evaluations=tuple(Evaluation(**e) for e in progress.evaluations),
            losses=progress.losses,
            cost=Cost(
                parameters=self.parameters,
                flops_per_image=facts.flops_per_image,
                frozen_flops_per_image=facts.frozen_flops_per_image,
                images_per_second=seen / seconds if seconds else None,
                data_wait_share=progress.wait_seconds / seconds if seconds else None,
                peak_memory_bytes=peak_memory(self.fabric.device),
                train_seconds=seconds,
                total_seconds=self.seconds,
            ),
            config=as_json(self.config),
            results_file=results.name if results else None,
            results_sha256=results.sha256 if results else None,
            files_sha256=self.written.sha256,
            pictures=self.written.pictures,
            warnings=tuple(self.written.warnings),
            outputs=self.written.outputs,
            git_commit=self.commit,
            libraries=library_versions(),
            device=device_name(self.fabric.device),
            world_size=self.fabric.world_size,
            precision=progress.precision or precision_name(self.fabric),
            started=progress.started,
            ended=None if status == "running" else now(),
            error=error,
            extra=facts.extra,
            labels=facts.labels,
            weights_options={} if facts.init is None else facts.init.options(),
            weights_name=None if facts.init is None else name_of(facts.init.path),
            departures=self.named.departures,
        )


def relative(paths: list[Path], out: Path) -> tuple[str, ...]:
    """Return paths as a record names them."""
    return tuple(str(path.relative_to(out)) for path in paths)


def last_precision(recorded: str) -> str:
    """Return what the last steps of a run were computed in: `32-true` of `bf16-mixed to step 100, then 32-true`."""
    return recorded.rpartition(", then ")[2]


def precision_name(fabric: Fabric) -> str:
    """Return 32-true, bf16-mixed or 16-mixed."""
    return str(fabric._precision.precision)


def now() -> str:
    """Return the time for a record: UTC, ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
