"""Confusion counts and the three metrics: by hand, and equal to mmseg's IoUMetric."""

import json

import numpy as np
import pytest
import torch

from segmentation import host
from segmentation.metrics import add_up, confusion, scores

assert host.MODELS  # mmseg first comes in through the module that keeps it quiet
from mmseg.evaluation.metrics import IoUMetric  # noqa: E402


def test_scores_by_hand() -> None:
    label = np.array([[0, 0, 0, 1], [1, 1, 255, 255]])
    prediction = np.array([[0, 0, 1, 1], [1, 2, 0, 3]])
    counts = confusion(label, prediction, 4)
    assert counts == [[0, 0, 2], [0, 1, 1], [1, 1, 2], [1, 2, 1]]
    found = scores(add_up([counts], 4))
    # IoU: class 0 2/3, class 1 2/4, class 2 0/1 (predicted, never labelled), class 3 none
    assert found["miou"] == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    # accuracy: classes 0 and 1 are labelled, 2/3 each
    assert found["macc"] == pytest.approx(100 * 2 / 3)
    assert found["aacc"] == pytest.approx(100 * 4 / 6)


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_mmseg(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes = 7
    metric = IoUMetric(iou_metrics=["mIoU"])
    metric.dataset_meta = {"classes": [str(i) for i in range(classes)]}
    parts = []
    for _ in range(4):
        # class 5 is never labelled, class 6 neither labelled nor predicted; some pixels are ignored
        label = rng.choice([0, 1, 2, 3, 4, 255], size=(20, 30))
        prediction = np.where(rng.random((20, 30)) < 0.6, label % 6, rng.integers(0, 6, (20, 30)))
        parts.append(confusion(label, prediction, classes))
        fields = {"pred_sem_seg": prediction, "gt_sem_seg": label}
        metric.process({}, [{key: {"data": torch.tensor(value)[None]} for key, value in fields.items()}])
    theirs = metric.compute_metrics(metric.results)
    ours = scores(add_up(json.loads(json.dumps(parts)), classes))
    for our_name, their_name in (("miou", "mIoU"), ("macc", "mAcc"), ("aacc", "aAcc")):
        # mmseg rounds to two decimals of a float32 percentage
        assert ours[our_name] == pytest.approx(theirs[their_name], abs=0.00501)


def test_all_ignored_is_refused() -> None:
    label = np.full((3, 3), 255)
    assert confusion(label, np.zeros((3, 3), dtype=int), 3) == []
    with pytest.raises(ValueError, match="no pixel of the validation images is labelled"):
        scores(add_up([[]], 3))
