"""Pixels normalised by the model: equal to images normalised one by one, and bytes until then."""

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from backbones.normalise import Normalise, View
from backbones.weights.normalisation import IMAGENET, Normalisation
from engine.training.seeding import seeded
from mae_transfer.tasks import TASKS
from pretraining.augment import training_view, validation_view
from scenes.layouts import ScenesIndex
from tests.smaller import distinct, smaller


def test_by_hand() -> None:
    pixels = torch.tensor([255, 51, 0], dtype=torch.uint8).view(3, 1, 1)
    made = Normalise(Normalisation(mean=(0.5, 0.1, 0.4), std=(0.25, 0.1, 0.2)))(pixels)
    assert made.flatten().tolist() == pytest.approx([2.0, 1.0, -2.0], abs=1e-6)
    assert pixels.flatten().tolist() == [255, 51, 0]


@pytest.mark.parametrize("scaled", [False, True])
def test_a_batch_equals_its_images_to_the_bit(scaled: bool) -> None:
    pixels = torch.randint(0, 256, (5, 3, 9, 7), dtype=torch.uint8)
    normalise = Normalise(IMAGENET, scaled=scaled)
    assert torch.equal(normalise(pixels), torch.stack([normalise(image) for image in pixels]))


def test_scaled_equals_torchvision_to_the_bit() -> None:
    pixels = torch.randint(0, 256, (2, 3, 9, 7), dtype=torch.uint8)
    theirs = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET.mean, IMAGENET.std)])
    assert torch.equal(Normalise(IMAGENET, scaled=True)(pixels), theirs(pixels))


def test_floats_are_normalised_already() -> None:
    image = torch.rand(2, 3, 4, 4)
    assert Normalise(IMAGENET)(image) is image


def test_its_constants_are_no_part_of_a_checkpoint_and_move_with_the_model() -> None:
    normalise = Normalise(IMAGENET)
    assert normalise.state_dict() == {} and [*normalise.parameters()] == []
    assert normalise.to("meta").mean.device.type == "meta"


@pytest.mark.parametrize("kind", ["none", "random_crop", "fixed_crop", "color_jitter"])
def test_a_view_is_its_pixels_normalised(kind: Any) -> None:
    image = Image.effect_noise((80, 60), 60).convert("RGB")
    view = training_view(kind, (32, 32), IMAGENET, scale=(0.2, 1.0), flip=True)
    with seeded(3):
        pixels = view.pixels(image)
    with seeded(3):
        made = view(image)
    # the kinds whose last bit is not that of the validation view are normalised before they are sent
    assert pixels.dtype == (torch.uint8 if kind in ("none", "random_crop") else torch.float32)
    assert made.dtype == torch.float32 and torch.equal(view.normalise(pixels), made)


def test_pixels_of_a_view_are_drawn_as_they_are() -> None:
    image = Image.new("RGB", (40, 40), (255, 51, 0))
    view: View = validation_view((8, 8), IMAGENET)
    assert view.pixels(image)[:, 3, 3].tolist() == [255, 51, 0]


def tasks() -> list[str]:
    return [name for name in distinct(TASKS) if not name.startswith(("detection", "segmentation"))]


@pytest.mark.parametrize("name", tasks())
def test_tasks_on_the_vit_alone_are_given_bytes(name: str, few_scenes: ScenesIndex, tmp_path: Path) -> None:
    spec, recipe = distinct(TASKS)[name]
    config = smaller(spec.recipes[recipe](), tmp_path)
    task = spec.build(config, data=few_scenes.imagenet, init=None)
    for data in (task.train_data, task.val_data):
        batch = task.collate([data[0], data[1]])
        images = [part for part in batch if isinstance(part, torch.Tensor) and part.ndim == 4]
        # erasing fills with noise of normalised pixels
        erased = data is task.train_data and getattr(getattr(config, "augment", None), "erase", 0)
        assert images and all(image.dtype == (torch.float32 if erased else torch.uint8) for image in images)
