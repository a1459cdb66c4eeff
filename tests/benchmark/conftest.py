"""Records made by hand, for tables and for fake tools."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.records.record import Cost, RunRecord, write_record
from tests.benchmark.fake_tools import FakeTools

COST = Cost(
    parameters=2_000_000,
    flops_per_image=1_000_000_000,
    images_per_second=400.0,
    data_wait_share=0.01,
    peak_memory_bytes=512 * 2**20,
    train_seconds=60.0,
    total_seconds=70.0,
)
PRIMARY = {"classification": "top1", "detection": "box_ap", "segmentation": "miou"}


def make_record(task: str, arm: str, seed: int, metrics: dict[str, float], **changes: Any) -> RunRecord:
    """A completed transfer run."""
    record = RunRecord(
        run_id=f"{task}{arm}{seed}",
        task=task,
        recipe="tiny",
        status="completed",
        seed=seed,
        steps=100,
        total_steps=100,
        samples_seen=640,
        data="scenes",
        train_split="train",
        val_split="val",
        train_images=100,
        val_images=50,
        data_notes=(),
        unreadable_images=(),
        architecture={"depth": 6, "embed_dim": 192},
        weights_source=arm,
        weights_path=None if arm == "random" else f"{arm}.safetensors",
        weights_sha256=None if arm == "random" else f"sha-{arm}",
        weights_report=(),
        primary_metric=PRIMARY.get(task, "val_loss"),
        metrics=metrics,
        evaluations=(),
        losses={"loss": 0.5},
        cost=COST,
        config={"mask_ratio": 0.75, "run": {"seed": seed, "batch_size": 64, "workers": 0}},
        results_file="results.jsonl",
        pictures=("pictures/predictions.png",),
        outputs=(),
        git_commit="abc",
        libraries={"torch": "2"},
        device="cpu",
        world_size=1,
        precision="32-true",
        started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:01:00+00:00",
        error=None,
    )
    return replace(record, **changes)


def make_pretraining(arm: str, metrics: dict[str, float], **changes: Any) -> RunRecord:
    """A completed pre-training run."""
    values: dict[str, Any] = {"outputs": ("backbone.safetensors",), "pictures": (), "samples_seen": 6400, **changes}
    return replace(make_record(arm, "random", 0, metrics), **values)


class Study:
    """A folder of records."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add(self, name: str, record: RunRecord) -> Path:
        write_record(self.root / name, record)
        return self.root / name

    def transfer(self, task: str, arm: str, values: list[float], **changes: Any) -> None:
        """One run per value, seeds from 0, under the task's primary metric."""
        for seed, value in enumerate(values):
            record = make_record(task, arm, seed, {PRIMARY[task]: value}, **changes)
            self.add(f"{task}-{arm}-seed{seed}", record)

    def pretrain(self, arm: str, metrics: dict[str, float], **changes: Any) -> None:
        self.add(f"pretrain-{arm}", make_pretraining(arm, metrics, **changes))


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return Study(tmp_path / "runs")


@pytest.fixture
def record() -> Callable[..., RunRecord]:
    return make_record


@pytest.fixture
def whole_study(study: Study) -> Study:
    """Three tasks, three arms, two seeds, both pre-trainings."""
    study.pretrain("supervised", {"top1": 91.0})
    study.pretrain("mae", {"val_loss": 0.4})
    study.transfer("classification", "random", [40.0, 44.0])
    study.transfer("classification", "supervised", [60.0, 61.0])
    study.transfer("classification", "mae", [63.0, 64.1])
    study.transfer("detection", "random", [1.0, 2.0])
    study.transfer("detection", "supervised", [10.0, 12.0])
    study.transfer("detection", "mae", [9.0, 13.0])
    study.transfer("segmentation", "random", [11.0, 12.0])
    study.transfer("segmentation", "supervised", [30.0, 31.0])
    study.transfer("segmentation", "mae", [28.0, 29.02])
    return study


@pytest.fixture
def tools(record: Callable[..., RunRecord], tmp_path: Path) -> FakeTools:
    return FakeTools(record, tmp_path / "calls")
