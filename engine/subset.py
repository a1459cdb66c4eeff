"""A part of the training images, the same for every run of a seed: 1 % is a part of 10 %, and classes come first.

Images are ranked by the hashes of their names, so that the choice depends on no order of files and no library's
generator. Before the others come those that cover the classes: from the class with the fewest images on, a class that
no image so far has takes its first image by rank. A part is the first images of that order; it has every class where
it has room for them.

Axis letters: I images, P pairs of an image and a class that it has.
"""

import hashlib
import math
from collections.abc import Sequence

import numpy as np

from engine.config import LabelFraction


def rank(name: str, seed: int) -> str:
    """Return what images are ordered by."""
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", errors="surrogateescape")).hexdigest()


def part_size(fraction: float, images: int) -> int:
    """Return the images of a fraction, rounded up."""
    return math.ceil(round(fraction * images, 9))  # 0.1 * 30 is a little above 3 in binary


def covering_order(names: Sequence[str], pair_P2: np.ndarray, *, seed: int) -> np.ndarray:
    """Return the numbers of all images, (I,), those that cover the classes first, each part in the order of ranks.

    `pair_P2`: (image, class), each once.
    """
    ranked = sorted(range(len(names)), key=lambda number: rank(names[number], seed))
    place_I = np.empty(len(names), dtype=np.int64)
    place_I[ranked] = np.arange(len(names))
    classes, count_K = np.unique(pair_P2[:, 1], return_counts=True)
    covered: set[int] = set()
    first: list[int] = []
    by_image: dict[int, list[int]] = {}
    for image, label in pair_P2.tolist():
        by_image.setdefault(image, []).append(label)
    for label in classes[np.argsort(count_K, kind="stable")].tolist():
        if label in covered:
            continue
        having = pair_P2[pair_P2[:, 1] == label, 0]
        image = int(having[np.argmin(place_I[having])])
        first.append(image)
        covered.update(by_image[image])
    chosen = {*first}
    return np.array([*first, *(number for number in ranked if number not in chosen)], dtype=np.int64)


def part_of(
    names: Sequence[str], pair_P2: np.ndarray, part: LabelFraction, *, classes: Sequence[str]
) -> tuple[np.ndarray, str]:
    """Return the numbers of the images of a part, ascending, and a note of what was chosen.

    `classes`: names of the classes in `pair_P2`.
    """
    assert part.label_fraction is not None
    order = covering_order(names, pair_P2, seed=part.label_seed)
    chosen = np.sort(order[: part_size(part.label_fraction, len(names))])
    listed = "".join(f"{name}\n" for name in sorted(names[number] for number in chosen))
    digest = hashlib.sha256(listed.encode("utf-8", errors="surrogateescape")).hexdigest()
    note = (
        f"{len(chosen)} of {len(names)} images used ({100 * part.label_fraction:g} %, seed {part.label_seed}; "
        f"list sha256 {digest[:12]})"
    )
    lacking = {*pair_P2[:, 1].tolist()} - {*pair_P2[np.isin(pair_P2[:, 0], chosen), 1].tolist()}
    if lacking:
        shown = ", ".join(sorted(classes[label] for label in lacking)[:10])
        note += f"; without an image of {len(lacking)} classes: {shown}"
    return chosen, note
