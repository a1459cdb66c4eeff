"""Time of the metrics of segmentation per image, against mmsegmentation's IoUMetric.

    python perf/segmentation_metrics.py

One image of 512 x 683 pixels, 150 classes, one thread. Prints milliseconds (median of 30), the ratio to mmseg, and
whether the areas are equal; then the time of 1,000 resamples of 2,000 images, and the size of a line of results.jsonl.
"""

import json
import time
from collections.abc import Callable
from statistics import median

import cv2
import numpy as np
import torch

from metrics.miou import add_up, areas_of, resampled_scores
from segmentation.evaluation.counts import boundary_confusion, confusion
from segmentation.host import IoUMetric

CLASSES, HEIGHT, WIDTH = 150, 512, 683


def maps() -> tuple[np.ndarray, np.ndarray]:
    """Return a label map of 16 x 21 regions, a tenth of it ignored, and a prediction that is right for 70%."""
    rng = np.random.default_rng(0)
    regions = [rng.integers(0, CLASSES, shape).astype(np.uint8) for shape in ((16, 21), (32, 42))]
    label, other = (cv2.resize(part, (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST) for part in regions)
    prediction = np.where(rng.random(label.shape) < 0.7, label, other)
    label[: HEIGHT // 10] = 255
    return label, prediction


def milliseconds(run: Callable[[], object], repeats: int = 30) -> float:
    """Return the median time of a call after one that warms up."""
    run()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return 1000 * median(times)


def bincount(label_HW: np.ndarray, prediction_HW: np.ndarray) -> np.ndarray:
    """Return the counts by NumPy's histogram of label * 256 + prediction, ignored labels in the last row."""
    pairs = label_HW.astype(np.int64) * 256 + prediction_HW
    return np.bincount(pairs.reshape(-1), minlength=256**2)


def main() -> None:
    """Print the figures."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    label, prediction = maps()
    label_long, prediction_long = torch.from_numpy(label).long(), torch.from_numpy(prediction).long()
    theirs = IoUMetric.intersect_and_union(prediction_long, label_long, CLASSES, 255)
    ours = add_up([confusion(label, prediction, CLASSES)], CLASSES)
    equal = np.array_equal(ours.diagonal(), theirs[0]) and np.array_equal(ours.sum(axis=1), theirs[3])
    times = {
        "mmseg IoUMetric.intersect_and_union": milliseconds(
            lambda: IoUMetric.intersect_and_union(prediction_long, label_long, CLASSES, 255)
        ),
        "confusion (cv2.calcHist, sparse rows)": milliseconds(lambda: confusion(label, prediction, CLASSES)),
        "np.bincount": milliseconds(lambda: bincount(label, prediction)),
        "torch.bincount": milliseconds(
            lambda: torch.bincount((label_long * 256 + prediction_long).flatten(), minlength=256**2)
        ),
        "boundary_confusion": milliseconds(lambda: boundary_confusion(label, prediction, CLASSES)),
    }
    first = next(iter(times.values()))
    print(f"areas equal mmseg's: {equal}")
    for name, value in times.items():
        print(f"{name:40} {value:7.2f} ms  {first / value:6.1f}x")
    rows = confusion(label, prediction, CLASSES)
    print(f"a line of results.jsonl with {len(rows)} counts: {len(json.dumps(rows)) / 1024:.1f} KiB")
    parts = [rows[:200]] * 2000
    resamples = np.random.default_rng(0).multinomial(2000, [1 / 2000] * 2000, size=1000)
    print(
        f"1,000 resamples of 2,000 images: {milliseconds(lambda: areas_of(parts, CLASSES), 3) / 1000:.2f} s to read, "
        f"{milliseconds(lambda: resampled_scores(areas_of(parts[:2000], CLASSES), resamples), 3) / 1000:.2f} s in all"
    )


if __name__ == "__main__":
    main()
