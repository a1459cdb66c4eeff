"""Records and configurations of any damage: read as what they say, or refused with the file's name."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backbones.weights.declaration import InitialWeights
from classification.config import ClassificationConfig
from classification.recipes import RECIPES
from engine.config import as_json
from engine.records.record import SCHEMA_VERSION, Cost, Evaluation, RunRecord, read_record
from engine.runs.reopen import Asked, rebuild
from engine.spec import check_metrics
from mae_transfer.tasks import TASKS

CONFIG = RECIPES["tiny"]()
COST = Cost(
    parameters=10, flops_per_image=10, images_per_second=1.0, data_wait_share=0.1, peak_memory_bytes=1,
    train_seconds=1.0, total_seconds=2.0,
)  # fmt: skip
RECORD = RunRecord(
    run_id="0" * 16, task="classification", recipe="tiny", status="completed", seed=0, steps=3, total_steps=3,
    samples_seen=24, data="data", train_split="train", val_split="val", train_images=24, val_images=8,
    data_notes=("a note",), unreadable_images=("x.jpg: truncated",), architecture=as_json(CONFIG.backbone),
    weights_source="mae", weights_path="b.safetensors", weights_sha256="0" * 64, weights_report=("loaded",),
    primary_metric="top1", metrics={"top1": 50.0, "top5": 75.0},
    evaluations=(Evaluation(step=3, metrics={"top1": 50.0}),), losses={"loss": 0.5}, cost=COST,
    config=as_json(CONFIG), results_file="results.jsonl", pictures=("pictures/a.png",), outputs=("b.safetensors",),
    git_commit=None, libraries={"torch": "2"}, device="cpu", world_size=1, precision="32-true",
    started="2026-01-01T00:00:00+00:00", ended=None, error=None, extra={"classes": ["a", "b"]},
    weights_options={"source": "mae", "num_heads": 3, "image_size": None, "trust_pickle": True},
    normalisation={"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
)  # fmt: skip


@dataclass
class _Facts:
    extra: dict[str, Any]
    data: str = "data"


@dataclass
class _Task:
    facts: _Facts


def _build(config: Any, *, data: Path, init: InitialWeights | None) -> Any:
    assert type(config) is type(CONFIG) and isinstance(config.run.seed, int) and config.run.batch_size >= 1
    assert init is None or not init.trust_pickle
    return _Task(_Facts({"classes": ["a", "b"]}))


@dataclass
class _Spec:
    """Of a task that is built without data."""

    config: type[Any] = ClassificationConfig
    module: str = "classification.task"
    reads_tokenizer: bool = False
    stated: tuple[str, ...] = ()

    build = staticmethod(_build)


def _right(record: RunRecord, folder: Path) -> None:
    """Raise AssertionError where a record was accepted that says what cannot be."""
    check_metrics(folder, record, TASKS)
    assert all(not value < 0 and not value > 101 for value in record.metrics.values())
    assert record.steps >= 0 and record.cost.parameters >= 0 and record.schema_version == SCHEMA_VERSION
    for name in (*record.pictures, *record.outputs):
        assert folder in (folder / name).resolve().parents


@pytest.mark.parametrize("opened", [False, True])
def test_records(campaign: Any, damaged_json: Any, damaged_value: Any, tmp_path: Path, opened: bool) -> None:
    folder = tmp_path.resolve()
    (folder / "checkpoints").mkdir()
    with (folder / "checkpoints" / "step-00000003.pt").open("wb") as file:
        file.truncate(10**9)  # as large as the weights of what is built, and sparse
    plain = json.loads(json.dumps(as_json(RECORD)))
    tasks: Any = {"classification": _Spec()}

    def case(rng: random.Random) -> bytes:
        if rng.random() < 0.5:  # the parts with the most fields come often
            part = rng.choice(("config", "weights_options", "cost", "metrics", "normalisation"))
            return json.dumps({**plain, part: damaged_value(rng, plain[part])}).encode()
        return bytes(damaged_json(rng, plain))

    def read(text: bytes) -> None:
        (folder / "record.json").write_bytes(text)
        _right(read_record(folder), folder)
        if opened:
            rebuild(folder, tasks, Asked(), say=lambda _: None)

    campaign.run(case, read, cases=300, names="record.json")


def test_configurations(campaign: Any, damaged_value: Any) -> None:
    from detection.recipes.all import RECIPES as DETECTION
    from files.typed import from_json
    from pretraining.recipes import RECIPES as PRETRAINING
    from segmentation.recipes import RECIPES as SEGMENTATION

    recipes: list[Any] = [recipe["tiny"]() for recipe in (RECIPES, DETECTION, PRETRAINING, SEGMENTATION)]

    def case(rng: random.Random) -> Any:
        config = rng.choice(recipes)
        return type(config), damaged_value(rng, json.loads(json.dumps(as_json(config))))

    def read(given: Any) -> None:
        cls, values = given
        made = from_json(cls, values, place="config.json")
        assert from_json(cls, json.loads(json.dumps(as_json(made)))) == made

    campaign.run(case, read, cases=300, names="config.json")
