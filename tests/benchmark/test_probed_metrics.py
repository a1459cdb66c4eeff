"""What the probes of a training ViT write is judged by its own bounds, in every task that has them."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmark.compare.records import open_store
from engine.config import FeatureProbes
from engine.records.record import RunRecord
from engine.spec import check_metrics
from mae_transfer.tasks import TASKS

PROBED = {"probe_knn": 40.0, "probe_linear": 100.0, "probe_rank": 151.3, "probe_spread": 0.4, "probe_unreadable": 130}
WITH_PROBES = [name for name, spec in TASKS.items() if issubclass(spec.config, FeatureProbes)]


@pytest.mark.parametrize("task", WITH_PROBES)
def test_a_rank_is_no_percentage_and_an_accuracy_is_one(task: str) -> None:
    """The rank of 1,000 images' features of width 768 goes to 768."""
    assert TASKS[task].faults(PROBED) == []
    wrong = {"probe_knn": 140.0, "probe_linear": -1.0, "probe_rank": -0.5, "probe_spread": -1.0}
    assert TASKS[task].faults(wrong) == [
        "probe_knn: 140.0 is no percentage",
        "probe_linear: -1.0 is no percentage",
        "probe_rank: -0.5 is outside 0 to inf",
        "probe_spread: -1.0 is outside 0 to inf",
    ]


def test_the_tasks_that_lead_with_a_percentage_have_them() -> None:
    assert {"supervised", "classification", "beit", "mae", "moco_v3"} <= {*WITH_PROBES}


def test_such_a_record_is_in_the_tables_and_may_be_published(study: Any, record: Callable[..., RunRecord]) -> None:
    done = record("classification", "mae", 0, {"top1": 60.0, **PROBED})
    check_metrics(study.add("run", done), done, TASKS)
    store = open_store(study.root, TASKS)
    assert store.unreadable == () and [item.record.metrics["probe_rank"] for item in store.completed] == [151.3]
