"""Run lengths: the same mask or an error, never what pycocotools crashes or hangs on."""

from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest

from detection.data.run_lengths import checked_runs, unpacked_runs


def test_both_forms_give_the_text_of_pycocotools() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        height, width = random.integers(1, 40, 2).tolist()
        mask_HW = random.random((height, width)) < random.choice([0, 0.1, 0.5, 1])
        expected = rle.encode(np.asfortranarray(mask_HW, np.uint8))["counts"].decode()
        runs = unpacked_runs(expected).tolist()
        place = int(random.integers(0, len(runs) + 1))
        for counts in (expected, runs, [float(run) for run in runs], [*runs[:place], 0, 0, *runs[place:]]):
            checked = checked_runs({"size": [height, width], "counts": counts}, height=height, width=width)
            assert checked == {"size": [height, width], "counts": expected}


def test_runs_of_no_pixel_at_one_place() -> None:
    """pycocotools ends the comparison of two masks where both have one: it says 1 of masks of which half agrees."""
    left = [0, 4, 0, 0, 4, 8]  # the first four pixels in, then one run of none out and one in, four out
    right = [0, 4, 0, 0, 0, 4, 8]
    masks = [checked_runs({"size": [4, 4], "counts": counts}, height=4, width=4) for counts in (left, right)]
    pixels = [rle.decode(mask).T.reshape(-1).tolist() for mask in masks]
    assert pixels == [[1] * 4 + [0] * 4 + [1] * 8, [1] * 8 + [0] * 8]
    assert rle.iou([masks[0]], [masks[1]], [0])[0, 0] == 4 / 16


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (None, "neither a list of polygons nor run lengths"),
        ({"counts": "44"}, "neither a list of polygons nor run lengths"),
        ({"size": [4, 5], "counts": "44"}, r"for an image of \[4, 5\] \(height, width\); the image is \[4, 4\]"),
        ({"size": None, "counts": "44"}, "for an image of None"),
        ({"size": [4, 4], "counts": None}, "are NoneType and neither text nor a list"),
        # these two never ended or killed the process
        ({"size": [4, 4], "counts": "44"}, "of 8 pixels; the image of .* has 16"),
        ({"size": [4, 4], "counts": "4>N"}, "a run of -2 pixels"),
        ({"size": [4, 4], "counts": "PPPPPPP0"}, "a number of 8 letters; 6 are the most"),
        ({"size": [4, 4], "counts": "\ud800"}, "letters beyond COCO's"),
        ({"size": [4, 4], "counts": "4\u00e9"}, "letters beyond COCO's"),
        ({"size": [4, 4], "counts": [4, -4, 16]}, "'-4' among them, which is no number of pixels"),
        ({"size": [4, 4], "counts": [4, 2**63]}, "among them, which is no number of pixels"),
        ({"size": [4, 4], "counts": [float("nan"), 16]}, "'nan' among them"),
        ({"size": [4, 4], "counts": [0.5, 15.5]}, "'0.5' among them"),
        ({"size": [4, 4], "counts": [True, 15]}, "'True' among them"),
        ({"size": [4, 4], "counts": [[16]]}, r"'\[16\]' among them"),
    ],
)
def test_what_is_no_mask_of_the_image(mask: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_runs(mask, height=4, width=4)
