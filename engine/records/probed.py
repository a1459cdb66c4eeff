"""The record of a probe of a frozen ViT: that of a run without a step."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol

import torch

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.declaration import InitialWeights
from backbones.weights.hub import name_of
from backbones.weights.loader import LoadReport
from engine.config import as_json
from engine.cost import count_flops, count_parameters
from engine.device import device_name, peak_memory
from engine.records.identity import run_id, write_identity
from engine.records.own_files import table_digests
from engine.records.provenance import git_commit, library_versions
from engine.records.record import Cost, Evaluation, RunRecord, write_record
from engine.records.results_file import ImageResult, write_results


class ProbeSettings(Protocol):
    """The configuration of a probe: a frozen dataclass."""

    @property
    def backbone(self) -> ViTConfig:
        """The ViT."""

    @property
    def seed(self) -> int:
        """Of random weights."""


@dataclass(frozen=True, kw_only=True)
class Probed:
    """What the records of the probes of one call share."""

    config: ProbeSettings
    data: Path
    init: InitialWeights | None
    report: LoadReport
    train_split: str
    val_split: str
    train_images: int
    val_images: int
    classes: Sequence[str]
    notes: tuple[str, ...]
    unreadable: tuple[str, ...]
    vit: ViT
    started: str
    """As `now` gives it."""
    began: float
    """Seconds of the monotonic clock."""
    precision: str = "float16 features"
    """What the record says of it."""

    def write(
        self,
        folder: Path,
        task: str,
        *,
        primary: str,
        leading: str,
        metrics: Mapping[str, float],
        results: Sequence[ImageResult],
        notes: Sequence[str] = (),
        pictures: Sequence[Path] = (),
        warnings: Sequence[str] = (),
    ) -> RunRecord:
        """Write a probe's files and return its record; `leading` names the outcome that `primary` and results are."""
        size = self.config.backbone.image_size
        example = torch.zeros(1, self.config.backbone.in_chans, *size, device=next(self.vit.parameters()).device)
        config = {**as_json(self.config), "leading": leading}
        data = {"train_images": self.train_images, "val_images": self.val_images, "classes": [*self.classes]}
        identity: dict[str, Any] = {"recipe": task, "config": config, "weights": self.report.sha256, "data": data}
        seconds = time.monotonic() - self.began
        written = write_results(folder, tuple(results))
        record = RunRecord(
            run_id=run_id(identity),
            task=task,
            recipe=task,
            status="completed",
            seed=self.config.seed,
            steps=0,
            total_steps=0,
            samples_seen=0,
            data=str(self.data),
            train_split=self.train_split,
            val_split=self.val_split,
            train_images=self.train_images,
            val_images=self.val_images,
            data_notes=(*self.notes, *notes),
            unreadable_images=self.unreadable,
            architecture=asdict(self.config.backbone),
            weights_source=self.report.source,
            weights_path=self.report.path,
            weights_sha256=self.report.sha256,
            weights_report=tuple(self.report.lines()),
            primary_metric=primary,
            metrics=dict(metrics),
            evaluations=(Evaluation(step=0, metrics=dict(metrics)),),
            losses={},
            cost=Cost(
                parameters=count_parameters(self.vit),
                flops_per_image=count_flops(self.vit, example),
                images_per_second=None,
                data_wait_share=None,
                peak_memory_bytes=peak_memory(example.device),
                train_seconds=0.0,
                total_seconds=seconds,
            ),
            config=config,
            results_file=written.name,
            results_sha256=written.sha256,
            files_sha256=table_digests(folder),
            pictures=tuple(path.relative_to(folder).as_posix() for path in pictures),
            warnings=tuple(warnings),
            outputs=(),
            git_commit=git_commit(),
            libraries=library_versions(),
            device=device_name(example.device),
            world_size=1,
            precision=self.precision,
            started=self.started,
            ended=now(),
            error=None,
            extra={"classes": [*self.classes]},
            weights_options={} if self.init is None else self.init.options(),
            weights_name=None if self.init is None else name_of(self.init.path),
        )
        write_identity(folder, identity)
        write_record(folder, record)
        return record


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
