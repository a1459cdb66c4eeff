"""Parts of the training images: by hand, one within the other, with every class where there is room."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.config import LabelFraction
from engine.subset import covering_order, part_of, part_size, rank


def test_the_images_that_cover_the_classes_come_first() -> None:
    names = [f"{number}.jpg" for number in range(6)]
    by_rank = sorted(range(6), key=lambda number: rank(names[number], 0))
    # class 0 is in all, class 1 in two images, class 2 in one
    last, before = by_rank[-1], by_rank[-2]
    pairs = np.array([*((n, 0) for n in range(6)), (last, 1), (before, 1), (last, 2)])
    order = covering_order(names, pairs, seed=0)
    assert order[0] == last  # the one image of class 2, which has the others too
    assert [*order[1:]] == [number for number in by_rank if number != last]
    chosen, note = part_of(names, pairs, LabelFraction(label_fraction=1 / 6), classes=["a", "b", "c"])
    assert [*chosen] == [last] and note.startswith("1 of 6 images used (16.6667 %, seed 0; list sha256 ")
    assert "without" not in note
    alone = np.array([(0, 0), (1, 1), (2, 2), (3, 3)])
    assert (
        "without an image of 2 classes: " in part_of(names, alone, LabelFraction(label_fraction=0.3), classes="abcd")[1]
    )


@given(
    st.lists(st.sets(st.integers(0, 5), min_size=1, max_size=3), min_size=1, max_size=25),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.integers(0, 3),
)
def test_a_part_is_within_a_larger_one_and_covers_what_it_can(
    held: list[set[int]], one: float, other: float, seed: int
) -> None:
    names = [f"i{number}" for number in range(len(held))]
    pairs = np.array([(n, label) for n, labels in enumerate(held) for label in sorted(labels)])
    order = covering_order(names, pairs, seed=seed)
    assert sorted(order) == [*range(len(held))]
    few, many = (
        {*part_of(names, pairs, LabelFraction(label_fraction=f, label_seed=seed), classes="abcdef")[0].tolist()}
        for f in sorted((one, other))
    )
    assert few <= many and len(few) == part_size(min(one, other), len(held))
    classes = set().union(*held)
    if len(few) >= len(classes):
        assert set().union(*(held[number] for number in few)) == classes
    shuffled = [(names[n], held[n]) for n in reversed(range(len(held)))]
    turned = np.array([(n, label) for n, (_, labels) in enumerate(shuffled) for label in sorted(labels)])
    again = part_of(
        [n for n, _ in shuffled], turned, LabelFraction(label_fraction=one, label_seed=seed), classes="abcdef"
    )
    first = part_of(names, pairs, LabelFraction(label_fraction=one, label_seed=seed), classes="abcdef")
    assert {shuffled[n][0] for n in again[0]} == {names[n] for n in first[0]}  # no order of files decides


def test_a_fraction_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"label_fraction is 10; it must be above 0 and at most 1 \(1 % is 0.01\)"):
        LabelFraction(label_fraction=10).check_fraction()
    assert part_size(0.1, 30) == 3 and part_size(0.01, 5) == 1
