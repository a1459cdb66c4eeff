"""Images to convert, and what a converted folder holds in a form that a test can write down."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

WIDTH, HEIGHT = 40, 20


@pytest.fixture
def draw() -> Callable[..., Path]:
    """`draw(path)`: write an image of 40x20 pixels (width x height), or of another size."""

    def write(path: Path, width: int = WIDTH, height: int = HEIGHT) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = sum(path.name.encode()) % 200
        Image.fromarray(np.full((height, width, 3), shade, np.uint8)).save(path)
        return path

    return write


@pytest.fixture
def objects() -> Callable[..., Any]:
    """`objects(out, split)`: (image, class, box, crowd, segmentation) of each object, boxes rounded to 1e-6 pixels."""

    def read(out: Path, split: str) -> list[tuple[Any, ...]]:
        content = json.loads((out / f"annotations/instances_{split}.json").read_text())
        image = {entry["id"]: entry["file_name"] for entry in content["images"]}
        name = {entry["id"]: entry["name"] for entry in content["categories"]}
        assert sorted(image) == list(range(1, len(image) + 1))
        assert all((out / split / file).is_file() for file in image.values())
        return [
            (
                image[raw["image_id"]],
                name[raw["category_id"]],
                [round(value, 6) for value in raw["bbox"]],
                raw["iscrowd"],
                raw.get("segmentation"),
            )
            for raw in content["annotations"]
        ]

    return read
