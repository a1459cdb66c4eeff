"""Transfer against size and length: points, table, picture, and what has nothing to scale."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmark.compare.comparison import Comparison, compare
from benchmark.compare.records import open_store
from benchmark.report.export import to_scaling, write_tables
from benchmark.report.html import to_html
from benchmark.report.scaling import scaling_grid, scaling_points
from mae_transfer.tasks import TASKS
from tools import export_tables

ARMS = {  # arm -> method, width, images seen
    "mae-96": ("mae", 96, 6400),
    "mae-192": ("mae", 192, 6400),
    "mae-192-short": ("mae", 192, 3200),
    "labels-96": ("supervised", 96, 6400),
    "labels-192": ("supervised", 192, 6400),
}


def parameters(width: int) -> int:
    return 75 * width**2  # about six blocks of 12 * width ** 2 and the ends


def fill(
    study: Any, *, differ: tuple[str, ...] = ("architecture.embed_dim",), arms: tuple[str, ...] = (*ARMS,)
) -> Path:
    """Write records of the arms, two seeds each, and the plan of a study that says in what they differ."""
    planned = []
    for place, arm in enumerate(arms):
        method, width, images = ARMS[arm]
        vit = {"depth": 6, "embed_dim": width}
        cost = replace(study.cost, parameters=parameters(width))
        study.pretrain_as(arm, method, architecture=vit, samples_seen=images, cost=cost)
        planned.append({"folder": f"pretrain-{arm}", "phase": "pretrain", "kind": "p", "arm": arm})
        for seed in (0, 1):
            changes = {"architecture": vit, "cost": cost, "weights_sha256": None}
            study.transfer_as(f"t-{arm}-{seed}", seed, 40.0 + 2 * place + seed, **changes)
            folder = f"t-{arm}-{seed}"
            planned.append({"folder": folder, "phase": "transfer", "kind": "t", "task": "things", "arm": arm})
    plan = {"name": "s", "claim": arms[0], "against": arms[1], "match": "none", "arms": arms, "differ": differ}
    (study.root / "study.json").write_text(json.dumps({**plan, "runs": planned}))
    return Path(study.root)


class Records:
    """The fixture `study` with the two calls that these tests make."""

    def __init__(self, study: Any, record: Any) -> None:
        self.study, self.record, self.root = study, record, study.root
        self.cost = record("classification", "random", 0, {}).cost

    def pretrain_as(self, arm: str, method: str, **changes: Any) -> None:
        made = self.record(method, "random", 0, {"val_loss": 0.5} if method == "mae" else {"top1": 90.0}, **changes)
        self.study.add(f"pretrain-{arm}", replace(made, outputs=("backbone.safetensors",), pictures=()))

    def transfer_as(self, name: str, seed: int, value: float, **changes: Any) -> None:
        self.study.add(name, self.record("classification", "own", seed, {"top1": value}, **changes))


@pytest.fixture
def records(study: Any, record: Any) -> Records:
    return Records(study, record)


def comparison_of(root: Path) -> Comparison:
    return compare(open_store(root, TASKS), resamples=0)


def test_points_by_method_size_and_samples(records: Records) -> None:
    points = scaling_points(comparison_of(fill(records)))
    assert [(p.method, p.arm, p.parameters, p.samples_seen) for p in points] == [
        ("mae", "mae-96", 691_200, 6400),
        ("mae", "mae-192-short", 2_764_800, 3200),
        ("mae", "mae-192", 2_764_800, 6400),
        ("supervised", "labels-96", 691_200, 6400),
        ("supervised", "labels-192", 2_764_800, 6400),
    ]
    assert points[0].values == {0: 40.0, 1: 41.0} and points[0].summary.mean == 40.5
    row = scaling_grid(comparison_of(records.root)).rows[1]
    assert row == (
        "things", "top1", "MAE", "mae-192-short", "2.76", "3,200", "44.50", "0.71", "2", "44.00, 45.00",
    )  # fmt: skip


def test_files_and_page(records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fill(records)
    comparison = comparison_of(root)
    paths = write_tables(comparison, tmp_path)
    assert [path.name for path in paths[-2:]] == ["scaling.md", "scaling.png"]
    with Image.open(paths[-1]) as picture:
        assert picture.format == "PNG" and picture.width > 900
    assert "mae-192-short" in paths[-2].read_text() and '<h2 id="scaling">' in to_html(comparison)
    out = tmp_path / "mine.md"
    assert export_tables.main([str(root), "--format", "scaling", "--out", str(out), "--resamples", "0"]) == 0
    assert capsys.readouterr().out.split() == [str(out), str(out.with_suffix(".png"))]
    assert out.read_text() == to_scaling(comparison) and out.with_suffix(".png").read_bytes() == paths[-1].read_bytes()


def test_the_picture_is_not_written_over_the_table(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(fill(records)), "--format", "scaling", "--resamples", "0", "--out", str(tmp_path / "scaling.png")]
    assert export_tables.main(flags) == 1
    assert "name the table, as scaling.md" in capsys.readouterr().err and not (tmp_path / "scaling.png").exists()


def test_one_size_and_one_length_are_no_scaling(
    records: Records, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = fill(records, arms=("mae-192", "labels-192"))
    assert scaling_points(comparison_of(root)) == ()
    assert not any("scaling" in path.name for path in write_tables(comparison_of(root), tmp_path))
    assert export_tables.main([str(root), "--format", "scaling", "--resamples", "0"]) == 1
    assert "nothing to scale over: no method of pre-training has transfers of two sizes" in capsys.readouterr().err


def test_sizes_that_the_study_does_not_state_are_refused(records: Records) -> None:
    comparison = comparison_of(fill(records, differ=()))
    assert all("architecture.embed_dim: 192 -> 96" in row.refused[0] or "96 -> 192" in row.refused[0]
               for row in comparison.rows)  # fmt: skip
    with pytest.raises(ValueError, match=r"nothing to scale over.*Refused: things: architecture\.embed_dim"):
        scaling_grid(comparison)
