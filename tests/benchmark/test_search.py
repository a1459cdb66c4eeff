"""The search of a learning rate: who wins, and what is said where nobody does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.study.search import Search, choose, read_choice
from engine.records.record import RunRecord, write_record
from metrics.miou import MIOU

Record = Callable[..., RunRecord]


def searched(record: Record, tmp_path: Path, values: dict[float, float | str | None]) -> Search:
    grid = []
    for rate, value in values.items():
        folder = tmp_path / f"lr{rate}"
        grid.append((rate, folder))
        if isinstance(value, str):
            write_record(folder, record("segmentation", "mae", 9, {}, status="failed", error=value))
        elif value is not None:
            write_record(folder, record("segmentation", "mae", 9, {"miou": value, "macc": 100 - value}))
    return Search(task="cars", arm="mae", seed=9, grid=tuple(grid), runs=(), out=tmp_path / "choice")


@pytest.mark.parametrize(
    ("values", "rate", "edge"),
    [
        ({1e-3: 20.0, 1e-4: 10.0, 1e-2: 15.0}, 1e-3, None),
        ({1e-3: 20.0, 1e-4: 20.0, 1e-2: 15.0}, 1e-4, "lowest"),  # a tie: the smaller rate
        ({1e-3: 20.0, 1e-4: 10.0, 1e-2: 25.0}, 1e-2, "highest"),
        ({1e-3: 20.0, 1e-4: 10.0, 1e-2: "NonFiniteError: the loss is not finite"}, 1e-3, None),
        ({1e-3: 0.0}, 1e-3, None),
    ],
)
def test_winner_of_a_search(
    record: Record, tmp_path: Path, values: dict[float, Any], rate: float, edge: str | None
) -> None:
    choice = choose(searched(record, tmp_path, values), MIOU)
    assert (choice.base_lr, choice.edge, choice.metric) == (rate, edge, "miou")
    assert [item.base_lr for item in choice.tried] == sorted(values)
    assert ("WARNING" in choice.line()) == (edge is not None)
    assert read_choice(tmp_path / "choice") == choice


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({1e-3: 20.0, 1e-4: None}, "needs the search run lr0.0001, which has no record"),
        ({1e-3: 9900.0}, r"lr0\.001/record\.json: metrics\.miou: 9900\.0 is no percentage; remove that folder"),
        ({1e-3: "ValueError: no box"}, r"needs the search run lr0.001, which is failed \(ValueError: no box\)"),
        (
            {1e-3: "NonFiniteError: x"},
            r"became infinite at every learning rate of the search \(0.001\); add lower ones",
        ),
    ],
)
def test_no_winner_without_results(record: Record, tmp_path: Path, values: dict[float, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(searched(record, tmp_path, values), MIOU)
    assert not (tmp_path / "choice").exists()


def test_an_unreadable_choice_is_named(tmp_path: Path) -> None:
    (tmp_path / "choice.json").write_text('{"tried": 3}')
    with pytest.raises(
        ValueError, match=r"choice\.json: not a readable choice \(tried: 3 is no list; Choice needs arm, "
    ):
        read_choice(tmp_path)
