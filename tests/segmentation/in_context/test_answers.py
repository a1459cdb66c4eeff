"""Retrieval and painting with models whose answer is known, and what stands beside them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from backbones.config import ViTConfig
from backbones.normalise import Normalise
from backbones.weights.normalisation import IMAGENET
from segmentation.in_context.answers import Asked, Inpainting, Retrieval, by_position
from segmentation.in_context.config import InContextConfig
from segmentation.in_context.images import Example, foreground, largest_box, patch_shares, scored
from segmentation.in_context.run import copied, mean_mask
from tests.segmentation.in_context.test_episodes import Picture

TINY = ViTConfig(embed_dim=16, depth=2, num_heads=2, patch_size=8, image_size=(32, 32))
CONFIG = InContextConfig(backbone=TINY)
RED, BLUE = (250, 10, 10), (10, 10, 250)


class MeanColour(nn.Module):
    """A ViT whose patch tokens are the mean colours of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks, self.norm = [None, None], nn.Identity()

    def feature_maps(self, image_BCHW: Tensor, blocks: range) -> list[Tensor]:
        return [nn.functional.avg_pool2d(image_BCHW, 8) for _ in blocks]


def scene(rows: slice, columns: slice) -> tuple[Image.Image, np.ndarray]:
    """Return a blue image with a red rectangle, 32 x 32, and where that is."""
    pixel, mask = np.full((32, 32, 3), BLUE, dtype=np.uint8), np.zeros((32, 32), dtype=bool)
    pixel[rows, columns], mask[rows, columns] = RED, True
    return Image.fromarray(pixel), mask


def example(rows: slice, columns: slice) -> Example:
    image, mask = scene(rows, columns)
    return Example(name="e", image=image, mask_HW=mask)


@pytest.mark.parametrize("features", ["raw", "standardised"])
def test_retrieval_finds_the_colour_wherever_it_is(features: str) -> None:
    config = replace(CONFIG, features=features)
    method = Retrieval(config=config, vits={"": (MeanColour(), Normalise(IMAGENET))}, device=torch.device("cpu"))
    image, truth = scene(slice(16, 32), slice(8, 24))
    (answer,) = method.answers([example(slice(0, 16), slice(0, 8))], [Asked(image=image, shown=(0,))])
    assert {*answer.share_hw} == {f"{kind}_k{k}" for kind in ("raw", "standardised") for k in (1, 3, 10, 30)}
    share = answer.share_hw[f"{features}_k1"]
    assert torch.equal(share > 0.5, torch.from_numpy(truth[::8, ::8]))
    assert np.array_equal(foreground(share.repeat_interleave(8, 0).repeat_interleave(8, 1), (32, 32)), truth)
    origin = answer.origin_P2
    assert origin is not None and (origin[:, 0] == 0).all()
    red = {0, 4}  # patches of the example's rectangle
    assert {int(place) in red for place in origin[truth[::8, ::8].reshape(-1), 1]} == {True}
    assert not red & {*origin[~truth[::8, ::8].reshape(-1), 1].tolist()}


def test_each_query_reads_its_own_examples_alone() -> None:
    method = Retrieval(config=CONFIG, vits={"": (MeanColour(), Normalise(IMAGENET))}, device=torch.device("cpu"))
    image, _ = scene(slice(0, 8), slice(0, 8))
    shown, blank = example(slice(0, 8), slice(0, 8)), replace(example(slice(0, 8), slice(0, 8)))
    blank = replace(blank, mask_HW=~shown.mask_HW)  # the blue is its object
    one, two, both = method.answers([shown, blank], [Asked(image=image, shown=s) for s in ((0,), (1,), (1, 0))])
    assert (one.share_hw["raw_k1"] + two.share_hw["raw_k1"]).allclose(torch.ones(4, 4))
    assert both.origin_P2 is not None and {*both.origin_P2[:, 0].tolist()} <= {0, 1}


class CopiesQuery:
    """Paints the red of the query, which lies to the left of the hole, white in a second painter's way."""

    def paint(self, image_BCHW: Tensor, hidden_hw: np.ndarray) -> np.ndarray:
        made = image_BCHW.permute(0, 2, 3, 1).numpy().astype(np.float32)
        assert hidden_hw.sum() == 4
        query = made[:, -15:, :15]
        made[:, -15:, -15:] = np.where(query[..., :1] > 128, 300.0, -20.0)  # beyond the range
        return made


def test_painting_is_read_from_the_fourth_cell() -> None:
    config = InContextConfig(backbone=TINY, method="inpainting")
    method = Inpainting(config=config, painters={"inpainting": CopiesQuery()})
    assert method.size == (15, 15)
    image, truth = scene(slice(0, 16), slice(16, 32))
    small = image.resize((15, 15), Image.Resampling.NEAREST)
    shown = replace(example(slice(0, 16), slice(0, 8)), image=small)
    (answer,) = method.answers([shown], [Asked(image=small, shown=(0, 0))])
    assert answer.share_hw["inpainting"].shape == (15, 15) and answer.canvases is not None
    predicted = foreground(answer.share_hw["inpainting"], (32, 32))
    assert (predicted != truth).mean() < 0.05  # the edge of 15 pixels enlarged to 32
    before, after = answer.canvases
    assert (before[17:, 17:] == 255).all() and {*np.unique(after[17:, 17:])} == {0, 255}
    with pytest.raises(ValueError, match="cannot be halved"):
        Inpainting(config=replace(config, backbone=replace(TINY, image_size=(24, 32))), painters={})


def test_patches_of_masks_of_any_size() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[:, :3] = True
    share_P1, usable_P = patch_shares(mask, (2, 2))
    assert share_P1[:, 0].tolist() == pytest.approx([0.75, 0.0, 0.75, 0.0]) and usable_P.all()
    _, usable_P = patch_shares(np.ones((1, 2), dtype=bool), (2, 2))
    assert usable_P.sum() == 2  # one row of pixels, two rows of patches


def test_position_alone_copies_the_place() -> None:
    _, mask = scene(slice(0, 16), slice(0, 8))
    found = by_position([mask], CONFIG)
    assert torch.equal(found["position_k1"] > 0.5, torch.from_numpy(mask[::8, ::8]))


def test_a_copy_and_the_mean_of_masks() -> None:
    _, mask = scene(slice(0, 16), slice(0, 8))
    assert np.array_equal(foreground(copied([mask], (32, 32)), (32, 32)), mask)
    assert foreground(copied([mask], (64, 16)), (64, 16)).sum() == 32 * 4
    assert not foreground(copied([mask, ~mask], (32, 32)), (32, 32)).any()  # half is not above a half

    class Of(Picture):
        def mask(self) -> np.ndarray:
            made = np.zeros((4, 4), dtype=bool)
            made[int(self.name)] = True
            made[1, 1] = True
            return made

    # rows 0, 1, 2 and the pixel (1, 1) in each: 14 / 3 pixels on average; (1, 1) is in all, then the first by rows
    mean = mean_mask([Of("0"), Of("1"), Of("2")], (4, 4), seed=0)
    assert np.argwhere(mean).tolist() == [[0, 0], [0, 1], [0, 2], [0, 3], [1, 1]]
    assert np.array_equal(mean, mean_mask([Of("2"), Of("0"), Of("1")], (4, 4), seed=5))


def test_the_box_is_of_the_largest_part() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True  # touch at corners
    mask[5:7, 6] = True
    assert largest_box(mask) == (0, 0, 3, 3)
    assert largest_box(np.zeros((8, 8), dtype=bool)) is None
    found = scored(2, mask, (0, 0, 3, 3), np.zeros((8, 8), dtype=bool))
    assert (found.category, found.labelled, found.predicted, found.box, found.box_iou) == (2, 5, 0, None, 0.0)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shots": 0}, "shots is 0; give 1 or more"),
        ({"least_area": 0.6}, "least_area 0.6 and most_area 0.5 are shares"),
        ({"last_blocks": 3}, "it is 1 to 2, the ViT's blocks"),
        ({"temperature": 0.0}, "temperature is 0"),
        ({"threshold": 1.0}, "threshold is 1; it is a share"),
        ({"queries_per_class": 0}, "queries_per_class is 0"),
        ({"method": "inpainting", "features": "raw"}, "features raw has no effect with method inpainting"),
        ({"target": "pixels"}, "target pixels has no effect with method retrieval"),
        ({"device": "gpu"}, "device is 'gpu'"),
    ],
)
def test_numbers_that_make_no_answer(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        replace(CONFIG, **given)
