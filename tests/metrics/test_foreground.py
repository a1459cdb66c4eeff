"""IoU of foregrounds and boxes by hand, and their means on resamples of images."""

import numpy as np
import pytest

from metrics.foreground import Query, box_iou, filled, resampler, scores
from metrics.result_lines import LineError


def query(hit: int, labelled: int, predicted: int, box: tuple | None = (0, 0, 2, 2)) -> Query:
    return Query(category=0, hit=hit, labelled=labelled, predicted=predicted, box=box, true_box=(1, 1, 2, 2))


def line(*queries: Query) -> dict:
    return {"queries": [{**vars(each)} for each in queries]}


def test_boxes_by_hand() -> None:
    assert box_iou((0, 0, 2, 2), (1, 1, 2, 2)) == pytest.approx(1 / 7)
    assert box_iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1.0
    assert box_iou((0, 0, 2, 2), (2, 0, 2, 2)) == 0.0  # they touch
    assert box_iou((0, 0, 0, 0), (0, 0, 0, 0)) == 0.0


def test_a_mask_by_hand() -> None:
    assert query(2, 4, 6).foreground_iou == 2 / 8
    assert query(0, 4, 0, box=None).foreground_iou == query(0, 4, 0, box=None).box_iou == 0.0
    assert query(0, 0, 0, box=None).foreground_iou == 0.0  # nothing to find and nothing found is no success


def test_filled_boxes() -> None:
    assert np.argwhere(filled((1, 0, 2, 1), (3, 4))).tolist() == [[0, 1], [0, 2]]
    assert filled((-5, -5, 100, 100), (3, 4)).all()
    assert filled((9, 9, 0.1, 0.1), (3, 4)).sum() == 1  # never empty


def test_means_are_over_queries_and_images_are_resampled_whole() -> None:
    lines = [line(query(1, 1, 1), query(0, 4, 4)), line(query(1, 2, 1, box=None))]
    found = scores(lines)
    assert found["foreground_iou"] == pytest.approx(100 * (1 + 0 + 0.5) / 3)
    assert found["box_iou"] == pytest.approx(100 * 2 / 7 / 3)
    drawn = resampler(lines)(np.array([[2, 0], [0, 2], [1, 1]]))["foreground_iou"]
    assert drawn == pytest.approx([50.0, 50.0, 50.0])
    assert resampler(lines)(np.array([[2, 0], [0, 2]]))["box_iou"] == pytest.approx([100 / 7, 0.0])


def test_lines_that_no_run_writes() -> None:
    with pytest.raises(LineError, match="hit 3, labelled 2"):
        resampler([{"queries": [{**vars(query(1, 2, 3)), "hit": 3}]}])
    with pytest.raises(LineError, match="no width and height"):
        resampler([{"queries": [{**vars(query(1, 2, 3)), "box": [0, 0, -1, 2]}]}])
    with pytest.raises(LineError, match="queries"):
        resampler([{"confusion": []}])
    with pytest.raises(ValueError, match="no query to score"):
        scores([{"queries": []}])
