"""The cost of use in the exports: where records have it, what is missing, and what is not to be compared."""

import csv
import io
import json
from dataclasses import replace
from typing import Any

import pytest

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.compare.use import use_rows
from benchmark.report.export import to_csv, to_html, to_json, to_latex, to_markdown
from benchmark.report.use_table import HEAD, use_grid
from engine.records.record import RunRecord, read_record, write_record
from engine.records.use import BatchUse, Conditions, Use
from mae_transfer.tasks import TASKS

ON = Conditions(device="processor_a", threads=2, precision="32-true", torch="2.14.0", images_sha256="ab" * 32)


def made(*seconds: float, batch: int = 4, peak: int | None = 100 * 2**20, **changes: Any) -> Use:
    """A measurement of some calls."""
    return Use(
        step=100,
        conditions=replace(ON, **changes),
        images=4,
        parameters=2_000_000,
        weights_bytes=8 * 2**20,
        checkpoint_bytes=24 * 2**20,
        batches=(
            BatchUse(
                batch=batch,
                sizes=((32, 48),),
                warm_up_seconds=(7.0,),
                seconds=seconds,
                held_bytes=None,
                peak_bytes=peak,
            ),
        ),
        measured="2026-01-01T00:00:00+00:00",
    )


def put(study: Any, name: str, *uses: Use) -> RunRecord:
    """Put measurements into a record of the study."""
    record = replace(read_record(study.root / name), use=uses)
    write_record(study.root / name, record)
    assert read_record(study.root / name) == record  # the round trip
    return record


def comparison_of(study: Any) -> Comparison:
    return compare(open_store(study.root, TASKS), resamples=0)


def test_nothing_measured_shows_nothing(whole_study: Any) -> None:
    comparison = comparison_of(whole_study)
    assert use_grid(comparison) is None and use_rows(comparison) == ()
    assert all("cost of use" not in to(comparison).lower() for to in (to_markdown, to_latex, to_csv, to_html))
    assert json.loads(to_json(comparison))["cost_of_use"] == {"rows": [], "notes": []}


def test_runs_that_were_measured_alike_are_taken_together(whole_study: Any) -> None:
    put(whole_study, "classification-mae-seed0", made(0.1, 0.2, 0.3))
    put(whole_study, "classification-mae-seed1", made(0.4, 0.5, 0.6, peak=120 * 2**20))
    rows = {row.arm: row for row in use_rows(comparison_of(whole_study)) if row.task == "classification"}
    mae = rows["mae"]
    assert (mae.runs, mae.of, mae.calls, mae.batch) == (2, 2, 6, 4)
    assert mae.seconds is not None and mae.images_per_second is not None
    # of 0.1 to 0.6: 0.225 = 0.2 + 0.25 x 0.1, the median 0.35, 0.475; four images in 0.35 s
    assert [round(each, 9) for each in (mae.seconds.low, mae.seconds.median, mae.seconds.high)] == [0.225, 0.35, 0.475]
    assert round(mae.images_per_second, 6) == round(4 / 0.35, 6)
    assert mae.peak_bytes == 120 * 2**20 and mae.parameters == 2_000_000
    assert rows["random"].runs == 0 and rows["random"].of == 2 and rows["random"].seconds is None


def test_exports(whole_study: Any) -> None:
    put(whole_study, "classification-mae-seed0", made(0.1, 0.2, 0.3, peak=None))
    put(whole_study, "classification-supervised-seed0", made(0.2, 0.2, 0.2, device="processor_b", threads=1))
    comparison = comparison_of(whole_study)
    grid = use_grid(comparison)
    assert grid is not None
    rows = {row[:2]: dict(zip(HEAD, row, strict=True)) for row in grid.rows}
    mae = rows["classification", "MAE"]
    assert (mae["ms a call"], mae["quartiles (ms)"], mae["images/s in use"]) == ("200.00", "150.00 to 250.00", "20.0")
    assert mae["peak memory in use (MiB)"] == "-"  # not known, and no 0
    assert (mae["runs"], mae["weights (MiB)"], mae["checkpoint (MiB)"]) == ("1 of 2", "8.0", "24.0")
    assert (mae["device"], mae["CPU threads"], mae["image size"]) == ("processor_a", "2", "32 x 48")
    assert rows["classification", "random init"]["runs"] == "0 of 2"
    assert (mae["quality"], rows["detection", "MAE"]["quality"]) == ("top1 63.55 ± 0.78 (2)", "box_ap 11.00 ± 2.83 (2)")
    assert {*list(rows["detection", "MAE"].values())[4:]} == {"-"}
    note = "classification: measured with different devices, numbers of threads; only rows that agree in these can be"
    assert len(grid.notes) == 1 and grid.notes[0].startswith(note)

    text = to_markdown(comparison).split("## Cost of use")[1].split("\n## ")[0]
    assert text.index("processor\\_a" if "processor\\_a" in text else "processor_a") < text.index(note)
    latex = to_latex(comparison)
    assert r"processor\_a" in latex and rf"\par {note}" in latex
    page = to_html(comparison)
    assert "<h3>Cost of use</h3>" in page and f"<li>{note}" in page

    lines = [row for row in csv.DictReader(io.StringIO(to_csv(comparison))) if row["table"] == "cost of use"]
    cells = {(row["task"], row["metric"], row["arm"], row["statistic"]): row for row in lines}
    one = cells["classification", "seconds_per_call", "mae", "median"]
    assert float(one["value"]) == 0.2 and one["n"] == "1"
    assert one["note"] == (
        "batch 4, 32 x 48 pixels, 3 calls, processor_a, 2 CPU threads, 32-true, PyTorch 2.14.0, images abababababab"
    )
    assert cells["classification", "peak_memory_bytes", "mae", "max"]["value"] == ""
    missing = cells["classification", "seconds_per_call", "random", "median"]
    assert (missing["value"], missing["n"], missing["note"]) == ("", "0", "not measured")
    quality = cells["classification", "top1", "mae", "mean"]
    assert (float(quality["value"]), quality["n"], quality["note"]) == (63.55, "2", "")
    assert cells["all", "all", "all", "text"]["note"].startswith(note)
    told = json.loads(to_json(comparison))["cost_of_use"]
    (one,) = (row for row in told["rows"] if (row["task"], row["arm"]) == ("classification", "mae"))
    assert one["metric"] == "top1" and one["quality"] == {"n": 2, "mean": 63.55, "sd": pytest.approx(1.1 / 2**0.5)}
    assert told["notes"][0].startswith(note)
    assert [row["seconds"] for row in told["rows"] if row["arm"] == "random"] == [None] * 3


def test_other_batches_are_rows_of_their_own_and_no_difference_of_conditions(whole_study: Any) -> None:
    one, eight = made(0.1, 0.1, 0.1, batch=1), made(0.4, 0.4, 0.4, batch=8)
    both = replace(one, batches=(*one.batches, *eight.batches))
    for seed in (0, 1):
        for arm in ("random", "mae", "supervised"):
            put(whole_study, f"classification-{arm}-seed{seed}", both)
    comparison = comparison_of(whole_study)
    rows = [row for row in use_rows(comparison) if row.task == "classification"]
    assert [(row.batch, row.runs) for row in rows] == [(1, 2), (8, 2)] * 3
    grid = use_grid(comparison)
    assert grid is not None and grid.notes == ()
