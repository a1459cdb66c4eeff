"""What a run of other than three channels declares, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backbones.weights.normalisation import IMAGENET, Normalisation
from classification.recipes import tiny as tiny_cls
from detection.spec import DETECTION
from engine.channels import channel_notes, channels_of, normalisation_for
from pretraining.recipes import RECIPES as PRETRAINING
from pretraining.recipes import tiny as tiny_mae
from segmentation.recipes import tiny as tiny_seg

FIVE: dict[str, Any] = {"channel_mean": (0.1, 0.2, 0.3, 0.4, 0.5), "channel_std": (0.5,) * 5}


def of_five(config: Any, **changes: Any) -> Any:
    return replace(config, backbone=replace(config.backbone, in_chans=5), **changes)


@pytest.mark.parametrize("recipe", [tiny_mae, tiny_cls, tiny_seg])
def test_statistics_are_of_the_channels(recipe: Any) -> None:
    declared = Normalisation(FIVE["channel_mean"], FIVE["channel_std"])
    config = of_five(recipe(), **FIVE)
    assert normalisation_for(config, IMAGENET, 5) == declared
    with pytest.raises(ValueError, match=r"channel_mean has 4 number\(s\) and in_chans is 5; give one for each"):
        of_five(recipe(), channel_mean=(0.1,) * 4, channel_std=(0.5,) * 5)
    with pytest.raises(ValueError, match=r"channel_std was given without channel_mean; give both"):
        of_five(recipe(), channel_std=(0.5,) * 5)
    with pytest.raises(ValueError, match=r"channel_mean is of images of other than 3 channels, and in_chans is 3"):
        replace(recipe(), channel_mean=(0.5,) * 3, channel_std=(0.5,) * 3)
    with pytest.raises(ValueError, match="must be above 0"):
        of_five(recipe(), channel_mean=(0.1,) * 5, channel_std=(0.5, 0.5, 0, 0.5, 0.5))


def test_what_is_not_declared_is_of_the_weights_or_refused() -> None:
    plain = of_five(tiny_mae())
    of_weights = Normalisation((0.3,) * 5, (0.1,) * 5)
    assert normalisation_for(plain, of_weights, 5) == of_weights
    assert normalisation_for(tiny_mae(), IMAGENET, 3) == IMAGENET
    with pytest.raises(ValueError, match=r"in_chans is 5, and the mean and std .* not known.*--channel-mean and --cha"):
        normalisation_for(plain, IMAGENET, 5)
    assert channel_notes(tiny_mae(), IMAGENET, 3) == ()
    (note,) = channel_notes(plain, of_weights, 5)
    assert note.endswith("of the initial weights")
    both = channel_notes(of_five(tiny_mae(), **FIVE), of_weights, 5)
    assert "mean (0.1, 0.2, 0.3, 0.4, 0.5) and std (0.5, 0.5, 0.5, 0.5, 0.5), declared" in both[0]
    assert both[1] == "the initial weights state another mean, (0.3, 0.3, 0.3, 0.3, 0.3), and std " + str((0.1,) * 5)
    with pytest.raises(ValueError, match="statistics and channel_mean were both given"):
        of_five(tiny_mae(), statistics=True, **FIVE)


@pytest.mark.parametrize(
    "recipe, changes, message",
    [
        (tiny_mae, {"augmentation": "color_jitter"}, "augmentation color_jitter is of RGB images, and in_chans is 5"),
        (tiny_mae, {"target": "tokens"}, "target tokens is of RGB"),
        (tiny_mae, {"decode": "reduced"}, "decode reduced is of RGB"),
        (tiny_mae, {"resume_from": "x.pth"}, r"resume_from x\.pth is of RGB"),
        (tiny_seg, {"layout": "cityscapes"}, "layout cityscapes is of RGB.*give --layout ade20k or folder"),
    ],
)
def test_options_of_rgb_are_refused_by_name(recipe: Any, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        of_five(recipe(), **changes)


@pytest.mark.parametrize("name, value", [("randaugment", "rand-m9-mstd0.5-inc1"), ("resize", "tensor")])
def test_augmentations_of_rgb_are_refused_by_name(name: str, value: str) -> None:
    config = tiny_cls()
    with pytest.raises(ValueError, match=rf"{name} {value} is of RGB images, and in_chans is 5; give --{name} "):
        of_five(config, augment=replace(config.augment, **{name: value}))


@pytest.mark.parametrize("recipe", [tiny_mae, tiny_cls, tiny_seg])
def test_a_function_of_ones_own_is_of_rgb(recipe: Any) -> None:
    config = recipe()
    with pytest.raises(ValueError, match=r"augment_function mine\.py:darker is of RGB images"):
        of_five(config, run=replace(config.run, augment_function="mine.py:darker"))


@pytest.mark.parametrize(
    "config, what",
    [
        (DETECTION.recipes["tiny"], "detection"),
        (PRETRAINING["tiny_beit"], "BEiT"),
        (PRETRAINING["tiny_moco_v3"], "MoCo v3"),
    ],
)
def test_tasks_of_rgb(config: Any, what: str) -> None:
    with pytest.raises(ValueError, match=rf"in_chans is 5: {what}.* is of RGB images, three channels"):
        of_five(config())


def test_channels_of_a_record() -> None:
    assert channels_of({"backbone": {"in_chans": 5}}, Path("run")) == 5
    assert channels_of({}, Path("run")) == 3  # a tokenizer has no ViT
    with pytest.raises(ValueError, match="run: in_chans is 'five'"):
        channels_of({"backbone": {"in_chans": "five"}}, Path("run"))
