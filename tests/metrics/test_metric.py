"""What a metric is: direction, unit, range, and what a table shows of it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.accuracy import TOP1, resampler, scores
from metrics.coco_ap import ap
from metrics.metric import Metric, error
from metrics.result_lines import mean_of

RMSE, AP = error("rmse", unit="m"), ap("box_ap")


def test_labels_and_values_in_tables() -> None:
    assert (TOP1.label, RMSE.label, error("val_loss").label) == (
        "top1",
        "rmse (m, lower is better)",
        "val_loss (lower is better)",
    )
    assert (TOP1.text(61.234), RMSE.text(0.123456)) == ("61.23", "0.1235")
    assert (TOP1.signed(-0.004), TOP1.signed(1.005), RMSE.signed(-0.5)) == ("+0.00", "+1.00", "-0.5000")


def test_a_gain_is_above_zero_where_the_first_is_better() -> None:
    assert TOP1.gain(2.0) == 2.0 and RMSE.gain(-0.5) == 0.5


@pytest.mark.parametrize(
    ("metric", "value", "fault"),
    [
        (TOP1, 100.0000005, None),  # rounding of a sum
        (TOP1, 100.1, "100.1 is no percentage"),
        (TOP1, -1.0, "-1.0 is no percentage"),
        (AP, -1.0, None),  # no object of the kind
        (AP, -0.5, "-0.5 is no percentage"),
        (RMSE, 1e9, None),
        (RMSE, -1e-9, "-1e-09 is outside 0 to inf"),
        (Metric(name="kappa", unit="", minimum=-1.0, maximum=1.0), 1.5, "1.5 is outside -1 to 1"),
        (RMSE, math.nan, None),  # a run may diverge
    ],
)
def test_what_no_run_can_have_written(metric: Metric, value: float, fault: str | None) -> None:
    assert metric.fault(value) == fault


def test_what_counts_as_missing() -> None:
    assert AP.is_missing(-1.0) and TOP1.is_missing(None) and RMSE.is_missing(math.inf) and not TOP1.is_missing(0.0)


def test_accuracy_by_hand() -> None:
    """Right at once, right among five, wrong: 1 and 2 of 3; the second image twice and the third once: 0 and 2 of 3."""
    lines = [{"label": 1, "top5": [1, 2]}, {"label": 2, "top5": [1, 2]}, {"label": 3, "top5": [1, 2]}]
    assert scores(lines) == pytest.approx({"top1": 100 / 3, "top5": 200 / 3})
    found = resampler(lines)(np.array([[1, 1, 1], [0, 2, 1]]))
    assert found["top1"] == pytest.approx([100 / 3, 0.0]) and found["top5"] == pytest.approx([200 / 3, 200 / 3])
    with pytest.raises(ValueError, match="no image to score"):
        scores([])


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_every_image_once_is_the_mean(values: list[float]) -> None:
    found = mean_of("m", values)(np.ones((1, len(values)), dtype=np.int64))["m"]
    assert found == pytest.approx([sum(values) / len(values)], rel=1e-9, abs=1e-6)
