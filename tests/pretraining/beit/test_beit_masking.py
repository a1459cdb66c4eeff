"""Blockwise masking: rectangles by hand, exact counts, and the masks of a public implementation of BEiT's code."""

import math
import random
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pretraining.beit.config import check_blocks
from pretraining.beit.masking import block_mask


class Scripted(random.Random):
    """Gives the numbers of a list, to every question in turn."""

    def __init__(self, *numbers: float) -> None:
        super().__init__(0)
        self.numbers = list(numbers)
        self.asked: list[tuple[str, float, float]] = []

    def uniform(self, a: float, b: float) -> float:
        self.asked.append(("uniform", a, b))
        return self.numbers.pop(0)

    def randint(self, a: int, b: int) -> int:
        self.asked.append(("randint", a, b))
        return int(self.numbers.pop(0))


def masked(generator: random.Random, *, grid: tuple[int, int] = (6, 6), masked: int = 10, smallest: int = 4) -> Tensor:
    return block_mask(grid, masked=masked, smallest=smallest, least_aspect=0.25, generator=generator)


def test_two_rectangles_by_hand() -> None:
    # area 6 at aspect exp(0.405) = 1.5: 3 x 2 from row 1, column 0; then 4 at aspect 1: 2 x 2 from row 0, column 4
    generator = Scripted(6.0, 0.405465, 1, 0, 4.0, 0.0, 0, 4)
    assert masked(generator).int().tolist() == [
        [0, 0, 0, 0, 1, 1],
        [1, 1, 0, 0, 1, 1],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]
    log4 = math.log(4)  # aspects from 1/4 to 4, uniform in the logarithm
    assert [question[1:] for question in generator.asked[:4]] == [(4, 10), (-log4, log4), (0, 3), (0, 4)]
    assert generator.asked[4][1:] == (4, 4)  # four are left to mask


def test_a_rectangle_that_masks_too_many_or_none_is_drawn_again() -> None:
    # 3 x 2 at the top left; the same again adds none; 3 x 3 beside it would add nine where four are left; 2 x 2 fits
    script = (6.0, 0.405465, 0, 0, 6.0, 0.405465, 0, 0, 9.0, 0.0, 0, 2, 4.0, 0.0, 4, 4)
    mask = masked(Scripted(*script))
    assert mask.sum() == 10 and mask[4:, 4:].all() and mask[:3, :2].all()


def test_a_rectangle_as_high_as_the_grid_is_drawn_again() -> None:
    # area 9 at aspect 4 is 6 x 2 (1.5 rounds to even), as high as the grid: no place is asked for
    mask = masked(Scripted(9.0, 1.386294, 9.0, 0.0, 3, 3, 4.0, 0.0, 0, 0), masked=13)
    assert mask[3:, 3:].all() and mask[:2, :2].all() and mask.sum() == 13


def test_what_no_rectangle_masks_is_filled_with_single_patches() -> None:
    # 2 x 2, then ten times the same place, which adds none
    script = [4.0, 0.0, 0, 0] * 11
    mask = masked(Scripted(*script), masked=7)
    assert mask.sum() == 7 and mask[:2, :2].all()
    assert torch.equal(mask, masked(Scripted(*script), masked=7))  # the generator decides on the three


@settings(deadline=None, max_examples=100)
@given(
    rows=st.integers(1, 16),
    columns=st.integers(1, 16),
    share=st.floats(0, 1),
    least=st.floats(0, 1),
    aspect=st.floats(0.05, 1),
    seed=st.integers(0, 10_000),
)
def test_every_mask_covers_exactly_as_many(
    rows: int, columns: int, share: float, least: float, aspect: float, seed: int
) -> None:
    patches = rows * columns
    if patches < 2:
        return
    masked = 1 + int(share * (patches - 2))
    smallest = 1 + int(least * (masked - 1))
    numbers = {"masked": masked, "smallest": smallest, "least_aspect": aspect}
    check_blocks((rows, columns), **numbers)  # type: ignore[arg-type]
    mask = block_mask((rows, columns), generator=random.Random(seed), **numbers)  # type: ignore[arg-type]
    assert mask.shape == (rows, columns) and mask.sum() == masked
    again = block_mask((rows, columns), generator=random.Random(seed), **numbers)  # type: ignore[arg-type]
    assert torch.equal(mask, again)


def test_masks_equal_those_of_flava() -> None:
    """transformers' FLAVA masks with BEiT's generator; where it stops short, ours has what it has, and more."""
    flava = pytest.importorskip("transformers.models.flava.image_processing_flava")
    theirs = flava.FlavaMaskingGenerator(14, 75, None, 16, 0.3)
    full = 0
    for seed in range(100):
        random.seed(seed)  # FLAVA draws from the global generator
        expected = theirs().bool()
        mask = block_mask((14, 14), masked=75, smallest=16, least_aspect=0.3, generator=random.Random(seed))
        assert mask[expected].all()
        full += torch.equal(mask, expected)
    assert full > 50  # about two thirds of its masks have all 75


def test_masked_patches_lie_in_blocks() -> None:
    generator = random.Random(0)
    masks = [
        block_mask((14, 14), masked=75, smallest=16, least_aspect=0.3, generator=generator).float() for _ in range(50)
    ]
    # the share of masked right-hand neighbours of masked patches: 74 / 195 if patches were drawn one by one
    beside = sum(float((m[:, 1:] * m[:, :-1]).sum() / m[:, :-1].sum()) for m in masks) / len(masks)
    assert beside > 0.7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"masked": 64}, "masked_patches is 64 and the ViT has 8 x 8 = 64 patches; mask at least 1 and leave at least "
         "1 visible (BEiT masks 75 of 196, here about 24)."),
        ({"masked": 0}, "masked_patches is 0"),
        ({"smallest": 25}, "min_block is 25; it must be from 1 to the 24 masked_patches."),
        ({"smallest": 0}, "min_block is 0"),
        ({"least_aspect": 0.0}, "min_aspect is 0.0; it must be above 0 and at most 1 (BEiT's is 0.3)."),
        ({"least_aspect": 3.0}, "min_aspect is 3.0"),
    ],
)  # fmt: skip
def test_numbers_that_mask_nothing(changes: dict[str, float], message: str) -> None:
    numbers = {"masked": 24, "smallest": 5, "least_aspect": 0.3, **changes}
    with pytest.raises(ValueError, match=re.escape(message)):
        check_blocks((8, 8), **numbers)  # type: ignore[arg-type]
