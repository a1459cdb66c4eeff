"""Frames of a video that no study grouped: told by names and scores, and warned of."""

import json
from typing import Any

import numpy as np
import pytest

from benchmark.compare.comparison import compare
from benchmark.compare.frames import alike_neighbours
from benchmark.compare.records import open_store
from benchmark.report.about import about
from mae_transfer.tasks import TASKS
from metrics.accuracy import resampler


def hits(values: np.ndarray) -> list[dict[str, Any]]:
    return [{"label": 1, "top5": [int(value), 0]} for value in values]


def test_frames_of_a_video_are_told_from_images_that_are_numbered() -> None:
    rng = np.random.default_rng(0)
    frames = (np.repeat(rng.random(40), 5) < 0.5).astype(int)  # five frames of a scene have one answer
    names = [f"0016E5_{30 * n:05d}.png" for n in range(200)]
    found = alike_neighbours(names, resampler(hits(frames)), "top1")
    assert found is not None and found > 0.5
    order = rng.permutation(200)  # in whatever order the results file has them
    shuffled = alike_neighbours([names[n] for n in order], resampler(hits(frames[order])), "top1")
    assert shuffled == pytest.approx(found)
    assert alike_neighbours(names, resampler(hits(rng.integers(0, 2, 200))), "top1") is None
    # classes of unequal difficulty, numbered within their folders, are no video
    classes = np.array([rng.random() < 0.1 + 0.8 * (n // 50 % 2) for n in range(200)], dtype=int)
    folders = [f"class{n // 50}/{n:04d}.png" for n in range(200)]
    assert alike_neighbours(folders, resampler(hits(classes)), "top1") is None
    assert alike_neighbours([f"{'abc'[n % 3]}.png" for n in range(200)], resampler(hits(frames)), "top1") is None
    assert alike_neighbours(names[:10], resampler(hits(frames[:10])), "top1") is None


def test_a_study_is_warned_of_frames(study: Any, record: Any) -> None:
    rng = np.random.default_rng(1)
    scenes = (np.repeat(rng.random(15), 4) < 0.5).astype(int)
    for arm, answers in (("mae", scenes), ("labels", rng.integers(0, 2, 60))):
        for seed in (0, 1):
            folder = study.add(f"{arm}{seed}", record("classification", arm, seed, {"top1": 100 * answers.mean()}))
            rows = [{"image_id": f"v_{n}.png", **line} for n, line in enumerate(hits(answers))]
            (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    comparison = compare(open_store(study.root, TASKS))
    assert not comparison.not_resampled and len(comparison.alike) == 1
    assert any(
        line.startswith("WARNING, classification: test images with consecutive names") for line in about(comparison)
    )
