"""Flipped bits in what a hold-out has written: an error or the same annotations, never others."""

from pathlib import Path
from typing import Any

from benchmark.study.hold_out import HoldOut, hold_out
from detection.data.coco import read_coco


def test_flips_of_a_hold_out(flips: Any, few_scenes: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    hold_out(HoldOut(tool="train_det", data=few_scenes.coco, share=0.25), out)
    splits = ("train2017", "val2017")
    files = [out / "annotations" / f"instances_{split}.json{end}" for split in splits for end in ("", ".sha256")]

    def read() -> Any:
        return [read_coco(files[2 * n], data=out, split=split).ground_truth for n, split in enumerate(splits)]

    flips.run(files, read, cases=100)
