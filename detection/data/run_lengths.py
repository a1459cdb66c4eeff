"""Masks as COCO's run lengths, checked before compiled code sees them.

pycocotools takes any text for a mask of the stated size: run lengths of another image are scored as if they were of
this one, and those that cover too few or too many pixels crash or never end.

Axis letters: G groups of five bits, N numbers that they make, R runs.
"""

from typing import Any

import numpy as np
import pycocotools.mask as rle

MOST_GROUPS = 6  # of one number: pycocotools shifts 32-bit integers, which the seventh group leaves


def checked_runs(mask: Any, *, height: int, width: int) -> dict[str, Any]:
    """Return run lengths of either form, numbers or text, as text, without runs of no pixel after the first.

    Two masks that have such runs at one place make pycocotools end their comparison there.

    Raises ValueError that says of the mask, which its caller names, what is wrong.
    """
    if not isinstance(mask, dict) or not {"size", "counts"} <= mask.keys():
        raise ValueError("has a segmentation that is neither a list of polygons nor run lengths.")
    size, counts = mask["size"], mask["counts"]
    if size != [height, width]:
        raise ValueError(
            f"has run lengths for an image of {str(size)[:80]} (height, width); the image is {[height, width]}."
        )
    if isinstance(counts, str):
        run_R = unpacked_runs(counts)
    elif isinstance(counts, list):
        run_R = _whole_numbers(counts, most=height * width)
    else:
        raise ValueError(f"has run lengths that are {type(counts).__name__} and neither text nor a list of numbers.")
    covered = int(run_R.sum())
    if covered != height * width:
        raise ValueError(
            f"has run lengths of {covered:,} pixels; the image of {[height, width]} has {height * width:,}."
        )
    if isinstance(counts, str) and run_R[1:].all():
        return {"size": [height, width], "counts": counts}
    packed: dict[str, Any] = rle.frPyObjects({"size": [height, width], "counts": _joined(run_R)}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def unpacked_runs(text: str) -> np.ndarray:
    """Return the runs (R,) of COCO's compressed run lengths, by turns outside and inside. Raises ValueError.

    The code of `rleFrString`: groups of five bits with a bit for more, the fifth bit of the last being the sign, and
    from the fourth run on the difference to the run before the last.
    """
    group_G = np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int64) - ord("0")
    if not len(group_G) or not text.isascii() or group_G.min() < 0 or group_G.max() > 0x3F or group_G[-1] & 0x20:
        raise ValueError("has run lengths that end within a number or have letters beyond COCO's.")
    last_N = np.flatnonzero(group_G & 0x20 == 0)
    first_N = np.concatenate([[0], last_N[:-1] + 1])
    length_N = last_N - first_N + 1
    if length_N.max() > MOST_GROUPS:
        raise ValueError(f"has run lengths with a number of {length_N.max()} letters; {MOST_GROUPS} are the most.")
    place_G = np.arange(len(group_G)) - first_N.repeat(length_N)
    run_R = np.add.reduceat((group_G & 0x1F) << (5 * place_G), first_N)
    run_R -= np.where(group_G[last_N] & 0x10, 1 << (5 * length_N), 0)
    run_R[1::2], run_R[2::2] = run_R[1::2].cumsum(), run_R[2::2].cumsum()
    if run_R.min() < 0:
        raise ValueError(f"has run lengths with a run of {run_R.min():,} pixels.")
    return run_R


def _whole_numbers(counts: list[Any], *, most: int) -> np.ndarray:
    for count in counts:
        if not isinstance(count, int | float) or isinstance(count, bool) or not 0 <= count <= most or count % 1:
            raise ValueError(f"has run lengths with {str(count)[:80]!r} among them, which is no number of pixels.")
    return np.array(counts, np.int64)


def _joined(run_R: np.ndarray) -> list[int]:
    """Return the same mask with no run of 0 pixels but, where it begins inside, the first."""
    inside_R = np.arange(len(run_R)) % 2
    run_R, inside_R = run_R[run_R > 0], inside_R[run_R > 0]
    first = np.flatnonzero(np.diff(inside_R, prepend=-1))
    joined: list[int] = np.add.reduceat(run_R, first).tolist()
    return [0, *joined] if inside_R[0] else joined
