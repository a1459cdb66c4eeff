"""Time of the tables and the page of a folder with very many records.

    python perf/export_records.py
    python perf/export_records.py --runs 1000

Writes records of four arms on three tasks, with random metrics and without results of single images (so no interval
counts the images), and exports them as tools/export_tables.py does. Prints seconds for each format, reading included.
"""

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.report.html import to_html
from engine.config import as_json
from engine.records.record import RECORD_NAME, Cost, RunRecord
from files.writing import replacing
from mae_transfer.tasks import TASKS

ARMS = ("random", "supervised", "moco_v3", "mae")
COMPARED = ("classification", "detection", "segmentation")


@dataclass(frozen=True, kw_only=True)
class Args:
    """Flags."""

    runs: int = 10_008
    """Records; a multiple of 12 gives every arm as many seeds on every task."""


def record_of(task: str, arm: str, seed: int, rng: np.random.Generator) -> RunRecord:
    """Return a completed run with random metrics."""
    names = [metric.name for metric in TASKS[task].scores[0].metrics]
    return RunRecord(
        task=task, recipe="tiny", run_id="0" * 16, status="completed", seed=seed, steps=100, total_steps=100,
        samples_seen=800, data="data", train_split="train", val_split="val", train_images=100, val_images=50,
        data_notes=(), unreadable_images=(), architecture={"depth": 6, "embed_dim": 192}, weights_source=arm,
        weights_path=None if arm == "random" else f"{arm}.safetensors",
        weights_sha256=None if arm == "random" else arm, weights_report=(), primary_metric=names[0],
        metrics=dict(zip(names, rng.uniform(10, 60, len(names)).tolist(), strict=True)), evaluations=(),
        losses={"loss": 0.5}, cost=COST, config={"run": {"seed": seed, "batch_size": 8, "optim": {"base_lr": 1e-3}}},
        results_file="results.jsonl", pictures=(), outputs=(), git_commit="0" * 40, libraries={"torch": "2"},
        device="cpu", world_size=1, precision="32-true", started="2026-01-01T00:00:00+00:00",
        ended="2026-01-01T00:01:00+00:00", error=None,
    )  # fmt: skip


COST = Cost(
    parameters=2_700_000, flops_per_image=100_000_000, train_seconds=60.0, total_seconds=70.0, images_per_second=13.0,
    data_wait_share=0.01, peak_memory_bytes=2**30,
)  # fmt: skip


def main(args: Args) -> None:
    """Write the records and print the times."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for number in range(args.runs):
            task, arm = TASKS[number % 3], ARMS[number // 3 % 4]
            folder = root / f"{task}-{arm}-seed{number // 12}"
            folder.mkdir()
            with replacing(folder / RECORD_NAME) as temporary:
                temporary.write_text(json.dumps(as_json(record_of(task, arm, number // 12, rng))))
        for kind, export in {**EXPORTS, "html": to_html}.items():
            if kind == "scaling":  # of sizes and lengths, which these runs do not have
                continue
            start = time.perf_counter()
            text = export(compare(open_store(root, TASKS)))
            print(f"{args.runs:,} records, {kind}: {time.perf_counter() - start:.1f} s, {len(text) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Args))
