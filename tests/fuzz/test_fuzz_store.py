"""Records and plans of any damage in a folder, exported in all formats: the rest goes on, what is left out is named."""

import csv
import io
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.report.export import to_csv, to_json, to_latex, to_markdown
from benchmark.report.html import to_html
from benchmark.study.plan import Plan, Planned, read_plans, write_plan
from benchmark.study.search import Choice, Tried, read_choice, write_choice
from engine.config import as_json
from engine.records.record import Cost, RunRecord
from mae_transfer.tasks import TASKS

COST = Cost(
    parameters=2, flops_per_image=3, images_per_second=4.0, data_wait_share=0.1, peak_memory_bytes=5, train_seconds=6.0,
    total_seconds=7.0,
)  # fmt: skip
RECORD = RunRecord(
    run_id="x", task="classification", recipe="tiny", status="completed", seed=0, steps=10, total_steps=10,
    samples_seen=640, data="d", train_split="train", val_split="val", train_images=100, val_images=50,
    data_notes=("a",), unreadable_images=("b: c",), architecture={"depth": 6, "embed_dim": 192}, weights_source="mae",
    weights_path="w", weights_sha256="s", weights_report=("l",), primary_metric="top1", metrics={"top1": 60.0},
    evaluations=(), losses={"loss": 0.5}, cost=COST, config={"run": {"seed": 0}, "label_fraction": 0.5},
    results_file="results.jsonl", pictures=("p.png",), outputs=("o",), git_commit="abc", libraries={"torch": "2"},
    device="cpu", world_size=1, precision="32-true", started="2026", ended="2026", error=None, arm="mae",
)  # fmt: skip
EXPORTS = (to_markdown, to_csv, to_json, to_latex)


def write(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_bytes(content)


def good(folder: Path) -> None:
    for arm, value in (("random", 40.0), ("supervised", 55.0), ("mae", 61.0)):
        for seed in (0, 1):
            record = replace(RECORD, arm=arm, seed=seed, metrics={"top1": value + seed}, config={"run": {"seed": seed}})
            write(folder / f"{arm}{seed}", json.dumps(as_json(record)).encode())


def test_record(campaign: Any, damaged_json: Any, tmp_path: Path) -> None:
    good(tmp_path)
    clean = to_csv(compare(open_store(tmp_path, TASKS), resamples=0)).splitlines()
    damaged = tmp_path / "damaged/record.json"

    def read(content: bytes) -> None:
        write(damaged.parent, content)
        store = open_store(tmp_path, TASKS)
        assert len(store.stored) + len(store.unreadable) == 7
        assert all(str(damaged) in line for line in store.unreadable)
        comparison = compare(store, resamples=0)
        texts = [export(comparison) for export in EXPORTS]
        json.loads(texts[2])
        rows = list(csv.reader(io.StringIO(texts[1])))
        assert {len(row) for row in rows} == {9}
        for text in texts:
            text.encode()
        if store.unreadable:  # the others give what they gave without it
            assert texts[1].splitlines() == clean
            assert "1 not readable" in texts[0]
        if random.Random(content).random() < 0.02:
            to_html(comparison).encode()

    read(json.dumps(as_json(replace(RECORD, seed=2))).encode())
    read(b"[" * 100_000)
    campaign.run(lambda rng: damaged_json(rng, as_json(RECORD)), read, cases=150, names="record.json")


def test_plan(campaign: Any, damaged_json: Any, tmp_path: Path) -> None:
    good(tmp_path)
    runs = [
        {
            "folder": f"{arm}{seed}",
            "phase": "transfer",
            "kind": "birds",
            "task": "birds",
            "arm": arm,
            "choice": "c",
            "pretrain_seed": 0,
        }
        for arm in ("random", "supervised", "mae")
        for seed in (0, 1)
    ]
    plan = {
        "name": "mine", "claim": "mae", "against": "supervised", "pass_mark": 50.0, "match": "samples",
        "arms": ["random", "supervised", "mae"], "differ": [], "runs": runs,
        "pretrain_seeds": "crossed", "margins": {"top1": 1.0}, "looks": [2, 3], "groups": {"birds": {"pattern": "(.)"}},
        "published": {"source": "a", "setting": "b", "rows": [{"variant": "v", "arm": "mae", "values": {"x": 1.0}}]},
    }  # fmt: skip

    def read(content: bytes) -> None:
        (tmp_path / "study.json").write_bytes(content)
        comparison = compare(open_store(tmp_path, TASKS), resamples=0)
        for export in EXPORTS:
            export(comparison).encode()

    read(json.dumps(plan).encode())
    campaign.run(lambda rng: damaged_json(rng, plan), read, cases=100, names="study.json")


def test_plan_and_choice(flips: Any, tmp_path: Path) -> None:
    tried = (Tried(base_lr=1e-4, value=50.0), Tried(base_lr=2e-4, value=60.0))
    choice = Choice(
        task="birds", arm="mae", metric="top1", val_split="val", val_images=50, seed=100, base_lr=2e-4, tried=tried
    )
    write_choice(tmp_path, choice)
    plan = Plan(name="mine", arms=("mae", "supervised"), runs=(Planned(folder="a", phase="transfer", kind="birds"),))
    path = write_plan(tmp_path, plan)
    flips.run([path, tmp_path / "choice.json"], lambda: (read_plans(tmp_path), read_choice(tmp_path)), cases=200)
