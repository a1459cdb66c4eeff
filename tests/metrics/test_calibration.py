"""Expected calibration error by hand, and what it is made of."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metrics.calibration import ECE, reliability


def line(probability: float, right: bool) -> dict[str, Any]:
    return {"label": 0, "top5": [0, 1] if right else [1, 0], "probability": probability}


def test_by_hand() -> None:
    """Of 15 bins two are taken: (4/5, 13/15] with 0.85 and 0.83, one right; (14/15, 1] with 0.95 and 1, both."""
    found = reliability([line(0.85, True), line(0.83, False), line(0.95, True), line(1.0, True)])
    assert found.count_B.tolist() == [0] * 12 + [2, 0, 2]
    assert found.right_B[12] == 0.5 and found.right_B[14] == 1 and np.isnan(found.right_B[13])
    assert found.probability_B[12] == pytest.approx(0.84)
    assert found.ece == pytest.approx(100 * (2 * 0.34 + 2 * 0.025) / 4)
    assert not ECE.higher_is_better and ECE.fault(-1) is not None


def test_the_end_of_a_bin_is_its_own() -> None:
    """0.5 of two bins is in the first, as (0, 1/2] has it; 0 is in it too."""
    assert reliability([line(0.5, True), line(0.0, True), line(0.51, True)], bins=2).count_B.tolist() == [2, 1]


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_it_is_a_percentage_and_the_bins_hold_all(images: list[tuple[float, bool]]) -> None:
    found = reliability([line(*image) for image in images])
    assert found.count_B.sum() == len(images) and 0 <= found.ece <= 100 + 1e-9


def test_sure_and_right_and_sure_and_wrong() -> None:
    assert reliability([line(1.0, True)]).ece == 0 and reliability([line(1.0, False)]).ece == 100
    with pytest.raises(ValueError, match="no image to score"):
        reliability([])
