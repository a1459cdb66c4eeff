"""Confusion counts, the three metrics and boundary IoU: by hand, and equal to mmseg's and to the paper's code."""

import json
import time

import cv2
import numpy as np
import pytest
import torch

from metrics.miou import add_up, areas_of, class_scores, resampled_scores, scores
from segmentation.evaluation.counts import boundary_confusion, boundary_miou, confusion, on_boundary
from segmentation.host import IoUMetric


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
        total = add_up(parts[-1:], classes)
        areas = total.diagonal(), total.sum(axis=1) + total.sum(axis=0) - total.diagonal()
        theirs = IoUMetric.intersect_and_union(torch.tensor(prediction), torch.tensor(label), classes, 255)
        for mine, host_area in zip((*areas, total.sum(axis=0), total.sum(axis=1)), theirs, strict=True):
            np.testing.assert_array_equal(mine, host_area.numpy())  # whole numbers: exactly
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


def random_maps(
    rng: np.random.Generator, classes: int, shape: tuple[int, int] = (24, 31)
) -> tuple[np.ndarray, np.ndarray]:
    """A blocky label map with ignored pixels and a prediction that is right in places."""
    coarse = rng.integers(0, classes, (5, 6)).astype(np.uint8)
    label = cv2.resize(coarse, shape[::-1], interpolation=cv2.INTER_NEAREST)
    prediction = np.where(rng.random(shape) < 0.9, np.roll(label, 1, axis=1), rng.integers(0, classes, shape))
    label[rng.random(shape) < 0.05] = 255
    return label, prediction.astype(np.uint8)


def test_counts_of_254_classes_and_of_wide_integers() -> None:
    rng = np.random.default_rng(0)
    label = np.append(rng.integers(0, 254, 5000), 255).reshape(1, -1)
    prediction = rng.integers(0, 254, label.shape)
    counts = add_up([confusion(label, prediction, 254)], 254)
    expected = np.bincount(label[0, :-1] * 254 + prediction[0, :-1], minlength=254**2).reshape(254, 254)
    np.testing.assert_array_equal(counts, expected)


def test_large_images_are_counted_exactly(monkeypatch) -> None:
    rng = np.random.default_rng(0)
    label, prediction = random_maps(rng, 4)
    whole = confusion(label, prediction, 4)
    monkeypatch.setattr(
        "segmentation.evaluation.counts.EXACT", 100
    )  # float32 counts are exact up to 2^24 pixels a part
    assert confusion(label, prediction, 4) == whole


def test_class_scores_by_hand() -> None:
    iou, accuracy = class_scores(np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]]))
    np.testing.assert_allclose(iou, [100 * 2 / 3, 75, np.nan])
    np.testing.assert_allclose(accuracy, [100 * 2 / 3, 100, np.nan])


def test_resampled_scores_equal_the_scores_of_summed_matrices() -> None:
    rng = np.random.default_rng(0)
    classes, images = 6, 9
    parts = [confusion(*random_maps(rng, 5), classes) for _ in range(images)]  # class 5 never occurs
    times = rng.multinomial(images, [1 / images] * images, size=7)
    times[0] = 1
    found = resampled_scores(areas_of(parts, classes), times)
    for row, counts in enumerate(times):
        repeated = [part for part, count in zip(parts, counts, strict=True) for _ in range(count)]
        expected = scores(add_up(repeated, classes))
        assert {name: value[row] for name, value in found.items()} == expected  # the same divisions of whole numbers
    nothing = resampled_scores(areas_of([[], parts[0]], classes), np.array([[2, 0], [1, 1]]))
    assert np.isnan(nothing["miou"][0]) and nothing["miou"][1] == scores(add_up(parts[:1], classes))["miou"]
    with pytest.raises(ValueError, match=r"shape \(1, 2\); 9 images need"):
        resampled_scores(areas_of(parts, classes), np.ones((1, 2)))


def test_a_thousand_resamples_of_ade20k_take_seconds() -> None:
    rng = np.random.default_rng(0)
    codes = [rng.choice(150 * 150, 60, replace=False) for _ in range(2000)]
    parts = [[[int(c) // 150, int(c) % 150, 700] for c in code] for code in codes]
    began = time.perf_counter()
    found = resampled_scores(areas_of(parts, 150), rng.multinomial(2000, [1 / 2000] * 2000, size=1000))
    assert found["miou"].shape == (1000,)
    assert time.perf_counter() - began < 30  # about one second; a minute is what is bearable


def boundary_of_the_paper(mask: np.ndarray, distance: int) -> np.ndarray:
    """`mask_to_boundary` of the authors: the mask, framed in zeros, less its erosion by a 3 x 3 square."""
    framed = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    eroded = cv2.erode(framed, np.ones((3, 3), dtype=np.uint8), iterations=distance)
    return mask - eroded[1:-1, 1:-1]


def test_boundary_of_a_square_by_hand() -> None:
    label = np.zeros((9, 9), dtype=np.uint8)
    label[2:7, 2:7] = 1
    on = on_boundary(label, 1)
    interior = np.zeros((9, 9), dtype=bool)
    interior[3:6, 3:6] = True  # of the square; around it the ring of zeros is one pixel inside the frame
    np.testing.assert_array_equal(on, ~interior)


@pytest.mark.parametrize("seed", range(3))
def test_boundary_counts_equal_the_papers_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    classes, shape = 4, (90, 120)
    label, prediction = random_maps(rng, classes, shape)
    distance = round(0.02 * 150)
    total = add_up([boundary_confusion(label, prediction, classes)], classes + 1)
    ious = []
    for number in range(classes):
        masks = [((part == number) & (label != 255)).astype(np.uint8) for part in (label, prediction)]
        near = [boundary_of_the_paper(mask, distance) for mask in masks]
        hit, either = (near[0] & near[1]).sum(), (near[0] | near[1]).sum()
        assert total[number, number] == hit
        assert total[number].sum() + total[:, number].sum() - hit == either
        ious.append(hit / either)
    assert boundary_miou(total) == pytest.approx(100 * np.mean(ious), rel=1e-12)


def test_boundary_of_a_perfect_prediction_and_of_nothing() -> None:
    label = np.full((30, 40), 255, dtype=np.uint8)
    assert boundary_confusion(label, np.zeros_like(label), 3) == []
    label[:, :20] = 2
    total = add_up([boundary_confusion(label, np.full_like(label, 2), 3)], 4)
    assert boundary_miou(total) == 100
    assert boundary_confusion(np.zeros((1, 1)), np.zeros((1, 1)), 3) == [[0, 0, 1]]
