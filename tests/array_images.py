"""A few images of five channels as arrays, in the layouts of classification and segmentation."""

from pathlib import Path

import numpy as np
from PIL import Image

CHANNELS, SIDE = 5, 64
KINDS = (np.uint8, np.uint16, np.float32)
WHITE = {np.uint8: 255, np.uint16: 65535, np.float32: 1}


def shares(seed: int) -> np.ndarray:
    """An image (64, 64, 5) from 0 to 1: noise, and a bright square whose channel is that of its class, 3 or 4."""
    image_HWC = np.random.default_rng(seed).uniform(0.1, 0.3, (SIDE, SIDE, CHANNELS))
    image_HWC[16:48, 16:48, 3 + seed % 2] += 0.5
    return image_HWC


def write_class_folders(root: Path, kind: type = np.uint16, *, first: bool = False) -> Path:
    """Eight images of two classes: four to train on, four to validate on; `first` puts the channels first."""
    for seed in range(8):
        folder = root / ("train" if seed < 4 else "val") / ("odd" if seed % 2 else "even")
        folder.mkdir(parents=True, exist_ok=True)
        stored_HWC = (shares(seed) * WHITE[kind]).astype(kind)
        np.save(folder / f"{seed}.npy", stored_HWC.transpose(2, 0, 1) if first else stored_HWC)
    return root


def write_label_maps(root: Path, kind: type = np.uint16) -> Path:
    """The same images in ADE20K's layout: the square is class 1 or 2, what is around it class 3."""
    for seed in range(8):
        split = "training" if seed < 4 else "validation"
        for folder in ("images", "annotations"):
            (root / folder / split).mkdir(parents=True, exist_ok=True)
        np.save(root / "images" / split / f"{seed}.npy", (shares(seed) * WHITE[kind]).astype(kind))
        label_HW = np.full((SIDE, SIDE), 3, np.uint8)
        label_HW[16:48, 16:48] = 1 + seed % 2
        Image.fromarray(label_HW).save(root / "annotations" / split / f"{seed}.png")
    (root / "objectInfo3.txt").write_text("Idx\tName\n1\teven\n2\todd\n3\taround\n")
    return root
