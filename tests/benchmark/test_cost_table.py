"""The table of costs: quality beside it, no seconds of training where nothing is trained, and what a call takes."""

import json
from dataclasses import replace
from functools import partial
from typing import Any

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report.cost_table import cost_grid
from benchmark.report.export import to_csv, to_frame, to_html, to_json, to_latex, to_markdown
from engine.records.record import read_record, write_record
from engine.records.use import BatchUse, Conditions, Use
from mae_transfer.tasks import TASKS

ON = Conditions(device="processor_a", threads=2, precision="32-true", torch="2.14.0", images_sha256="ab" * 32)
LATENCY, PEAK = "classification: in use (ms per image, batch 2)", "classification: peak memory in use (MiB)"


def comparison_of(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS), resamples=0)


def cells(comparison: Comparison) -> dict[str, dict[str, str]]:
    """Arm -> column -> text."""
    grid = cost_grid(comparison)
    return {row[0]: dict(zip(grid.head, row, strict=True)) for row in grid.rows}


def measure(study: Any, name: str, seconds: float, **changes: Any) -> None:
    """Put calls of that many seconds into a record, on a batch of two and, twice as long, on one of eight."""
    made = partial(BatchUse, sizes=((32, 48),), warm_up_seconds=(7.0,), held_bytes=None)
    batches = (
        made(batch=2, seconds=(seconds,) * 3, peak_bytes=100 * 2**20),
        made(batch=8, seconds=(2 * seconds,) * 3, peak_bytes=300 * 2**20),
    )
    use = Use(
        step=100,
        conditions=replace(ON, **changes),
        images=4,
        parameters=2,
        weights_bytes=8,
        checkpoint_bytes=24,
        batches=batches,
        measured="2026-01-01T00:00:00+00:00",
    )
    write_record(study.root / name, replace(read_record(study.root / name), use=(use,)))


def test_what_trains_nothing_has_no_seconds_of_training(whole_study: Any) -> None:
    for arm in ("random", "supervised", "mae"):
        for seed in (0, 1):
            folder = whole_study.root / f"classification-{arm}-seed{seed}"
            record = read_record(folder)
            probed = replace(record.cost, train_seconds=0.0, images_per_second=None)
            write_record(folder, replace(record, steps=0, total_steps=0, samples_seen=0, cost=probed))
    comparison = comparison_of(whole_study)
    mae = cells(comparison)["MAE"]
    assert mae["classification: top1"] == "63.55 \N{PLUS-MINUS SIGN} 0.78 (2)"
    assert (mae["classification: training (s)"], mae["detection: training (s)"]) == ("-", "60 (2)")
    frame = to_frame(comparison)
    took = frame[(frame["table"] == "cost") & (frame["metric"] == "seconds") & (frame["arm"] == "mae")]
    assert dict(zip(took["task"], took["n"], strict=True)) == {
        **{"pretraining": 1, "classification": 0, "detection": 2, "segmentation": 2}
    }
    assert took["value"].isna().tolist() == [False, True, False, False]
    told = {cost["arm"]: cost for cost in json.loads(to_json(comparison))["costs"]}
    assert told["mae"]["transfer_seconds"]["classification"] is None
    assert told["mae"]["quality"]["classification"]["summary"]["mean"] == 63.55


def test_what_a_call_takes_stands_beside_the_quality(whole_study: Any) -> None:
    measure(whole_study, "classification-mae-seed0", 0.1)
    measure(whole_study, "classification-supervised-seed0", 0.25)
    comparison = comparison_of(whole_study)
    found = cells(comparison)
    # 0.1 s for two images; the batch of eight stands in the other table
    assert (found["MAE"][LATENCY], found["MAE"][PEAK]) == ("50.00", "100")
    assert found["supervised"][LATENCY] == "125.00" and found["random init"][LATENCY] == "-"
    assert not any("detection: in use" in name for name in found["MAE"]) and cost_grid(comparison).notes == ()
    head = [*found["MAE"]]
    assert head[head.index("classification: top1") :][:4] == [
        *("classification: top1", "classification: training (s)", LATENCY, PEAK)
    ]
    for export in (to_markdown, to_latex, to_html):
        assert export(comparison).count(LATENCY) >= 1
    assert "seconds_per_call" in to_csv(comparison)


def test_calls_under_several_conditions_are_not_set_beside_each_other(whole_study: Any) -> None:
    measure(whole_study, "classification-mae-seed0", 0.1)
    measure(whole_study, "classification-supervised-seed0", 0.25, device="processor_b")
    grid = cost_grid(comparison_of(whole_study))
    assert LATENCY not in grid.head and "classification: top1" in grid.head
    assert grid.notes == (
        "classification: what a call takes was measured under several conditions, and stands in the table of the cost "
        "of use alone.",
    )
