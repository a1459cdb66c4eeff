"""The canvas pixel by pixel, and its answer read back."""

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.weights.normalisation import IMAGENET
from pretraining.augment import validation_view
from segmentation.in_context.canvas import canvas, cell_size, hole, painted, read_answer
from segmentation.in_context.canvases import with_margin

RNG = np.random.default_rng(0)


def noise(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (*size, 3), dtype=np.uint8))


def test_cells_and_the_hole_are_those_of_the_paper() -> None:
    assert cell_size((224, 224)) == (111, 111)
    hidden = hole((14, 14))
    assert (~hidden).sum() == 147 and hidden[7:, 7:].all()
    with pytest.raises(ValueError, match="3 x 4 patches cannot be halved"):
        hole((3, 4))
    with pytest.raises(ValueError, match="no four equal cells"):
        cell_size((33, 32))


def test_a_canvas_has_its_parts_in_their_corners() -> None:
    example, query, mask = noise((7, 15)), noise((7, 15)), np.zeros((14, 30), dtype=bool)
    mask[:6, 10:] = True
    made = canvas(example, mask, query, (16, 32))
    assert np.array_equal(made[:7, :15], np.asarray(example)) and np.array_equal(made[-7:, :15], np.asarray(query))
    expected = np.zeros((7, 15, 3), dtype=np.uint8)
    expected[:3, 5:] = 255
    assert np.array_equal(made[:7, -15:], expected)
    assert (made[7:9] == 255).all() and (made[:, 15:17] == 255).all() and (made[9:, 17:] == 255).all()
    whole = canvas(example, mask, query, (16, 32), mask)
    assert np.array_equal(whole[9:, 17:], expected) and np.array_equal(whole[:, :16], made[:, :16])
    assert np.array_equal(read_answer(whole) > 0.5, expected[:, :, 0] > 0)


def test_the_nearer_of_two_colours_by_distances() -> None:
    """Above a half is nearer to white than to black, for colours beyond the range too."""
    picture = RNG.normal(128, 120, (32, 32, 3))
    cell = picture[-15:, -15:]
    nearer = np.square(cell - 255).sum(axis=2) < np.square(cell).sum(axis=2)
    assert np.array_equal(read_answer(picture) > 0.5, nearer)


def test_masks_of_other_sizes_become_cells() -> None:
    assert (painted(np.ones((1, 1), dtype=bool), (7, 5)) == 255).all()
    assert (painted(np.zeros((500, 3), dtype=bool), (7, 5)) == 0).all()


@pytest.mark.parametrize("size", [(64, 64), (32, 32), (224, 224), (48, 48), (64, 96)])
def test_pre_training_sees_the_whole_canvas(size: tuple[int, int]) -> None:
    picture = RNG.integers(0, 256, (*size, 3), dtype=np.uint8)
    seen = validation_view(size, IMAGENET).pixels(Image.fromarray(with_margin(picture)))
    assert torch.equal(seen, torch.from_numpy(picture).permute(2, 0, 1))
