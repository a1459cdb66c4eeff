"""The table of what tuning did, from the searches of a study."""

from pathlib import Path
from typing import Any

from benchmark.compare.comparison import compare
from benchmark.compare.records import open_store
from benchmark.report.export import EXPORTS
from benchmark.report.tuning import TUNING_TITLE, tuning_grid
from benchmark.study.plan import Plan, Planned, write_plan
from benchmark.study.search import Choice, Tried, write_choice
from mae_transfer.tasks import TASKS

VALUES = {"mae": {1e-3: 30.0, 2e-3: 28.5, 4e-3: None}, "labels": {1e-3: 20.25, 2e-3: 29.0}}


def test_every_rate_of_every_arm(study: Any, record: Any) -> None:
    root: Path = study.root
    assert tuning_grid(compare_of(study, record, {})) is None
    (root / "study.json").unlink()
    comparison = compare_of(study, record, VALUES)
    grid = tuning_grid(comparison)
    assert grid is not None
    assert grid.head == ("task", "learning rate", "MAE", "labels", "MAE minus labels")
    assert grid.rows == (
        ("cars", "0.001", "30.00 *", "20.25", "+9.75"),
        ("cars", "0.002", "28.50", "29.00 *", "-0.50"),
        ("cars", "0.004", "diverged", "-", "-"),
    )
    assert "miou of one run per learning rate and arm" in grid.caption
    for form in ("md", "html"):
        assert TUNING_TITLE in EXPORTS[form](comparison) and "+9.75" in EXPORTS[form](comparison)  # type: ignore[index]


def compare_of(study: Any, record: Any, searched: dict[str, dict[float, float | None]]) -> Any:
    """Return the comparison of a study of one task, whose arms were searched so."""
    runs = []
    for arm in VALUES:
        study.add(f"cars-{arm}", record("segmentation", arm, 0, {"miou": 40.0}))
        choice = f"search/cars-{arm}" if searched else None
        runs.append(Planned(folder=f"cars-{arm}", phase="transfer", kind="k", task="cars", arm=arm, choice=choice))
    for arm, values in searched.items():
        tried = tuple(Tried(base_lr=lr, value=value) for lr, value in values.items())
        best = max((lr for lr in values if values[lr] is not None), key=lambda lr: values[lr] or 0.0)
        write_choice(
            study.root / "search" / f"cars-{arm}",
            Choice(
                task="cars", arm=arm, metric="miou", val_split="v", val_images=9, seed=100, base_lr=best, tried=tried
            ),
        )
    write_plan(study.root, Plan(name="x", claim="mae", against="labels", arms=tuple(VALUES), runs=tuple(runs)))
    return compare(open_store(study.root, TASKS), resamples=0)
