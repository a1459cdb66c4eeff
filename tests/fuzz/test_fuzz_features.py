"""Cached features with single bits flipped: made again, and never other numbers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backbones.config import ViTConfig
from backbones.vit import ViT
from backbones.weights.normalisation import Normalisation
from classification.data import LabelledImages, eval_transform, open_split
from classification.probe.features import Features, cached_features
from engine.device import make_fabric
from engine.training.seeding import seed_all

TINY = ViTConfig(embed_dim=16, depth=1, num_heads=1, patch_size=16, image_size=(16, 16))


@pytest.fixture
def features(tmp_path: Path) -> Any:
    """A function that reads or makes the features of four images in `tmp_path/cache`."""
    for number in range(4):
        path = tmp_path / "data" / "val" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (60 * number, 9, 200)).save(path)
    folder, _ = open_split(tmp_path / "data", "val")
    images = LabelledImages(folder, eval_transform((16, 16), 1.0, Normalisation()))
    seed_all(0)
    vit, fabric = ViT(TINY).eval(), make_fabric("32-true")

    def read() -> Features:
        made = cached_features(tmp_path / "cache", vit, images, fabric=fabric, batch_size=4, workers=0)
        # copied: the array is mapped from the file, which a flip changes
        return replace(made, features_PEND=np.array(made.features_PEND))

    return read


def same(a: Features, b: Features) -> bool:
    """Whether two have the same arrays and names."""
    equal = np.array_equal(a.features_PEND, b.features_PEND) and np.array_equal(a.label_N, b.label_N)
    return equal and (a.image_ids, a.unreadable) == (b.image_ids, b.unreadable)


def test_flipped_bits_of_cached_features(flips: Any, features: Any, tmp_path: Path) -> None:
    features()
    files = [tmp_path / "cache" / name for name in ("features.npy", "images.json")]
    whole = {path: path.read_bytes() for path in files}

    def reset() -> None:
        for path, content in whole.items():
            path.write_bytes(content)

    outcomes = flips.run(files, features, cases=40, reset=reset, equal=same)
    assert outcomes["equal"] == sum(outcomes.values())  # made again, none refused


@pytest.mark.parametrize("damage", ["zeros", "cut", "empty", "other", "unlisted", "old"])
def test_damaged_features_are_made_again_with_a_warning(damage: str, features: Any, tmp_path: Path) -> None:
    right = features()
    array, listed = tmp_path / "cache" / "features.npy", tmp_path / "cache" / "images.json"
    content = array.read_bytes()
    if damage == "zeros":
        array.write_bytes(content[:-60] + bytes(60))
    elif damage == "cut":
        array.write_bytes(content[:-60])
    elif damage == "empty":
        listed.write_bytes(b"")
    elif damage == "other":
        np.save(array, np.zeros((2, 1, 4, 16), dtype=np.float16))
    elif damage == "unlisted":
        array.unlink()
    else:
        listed.write_text('{"image_ids": ["a/0.png"], "labels": [1], "unreadable": []}')
    with pytest.warns(
        UserWarning, match=r"cached features not usable, extracted again: .*(features\.npy|images\.json)"
    ):
        again = features()
    assert same(again, right) and array.read_bytes() == content
    assert same(features(), right)
