"""The confusion picture and the table of classes."""

from pathlib import Path

import numpy as np
from PIL import Image

from segmentation.per_class import write_per_class
from segmentation.pictures import draw_confusion


def test_table_of_classes_by_hand(tmp_path: Path) -> None:
    total = np.array([[2, 1, 0], [0, 3, 0], [0, 0, 0]])
    path = write_per_class(tmp_path / "new" / "per_class.csv", total, ["sky", "a, b", "never"])
    assert path.read_text().splitlines() == [
        "class,name,iou,acc,labelled,predicted,hit",
        "0,sky,66.6667,66.6667,3,2,2",
        '1,"a, b",75.0000,100.0000,3,4,3',
        "2,never,,,0,0,0",
    ]


def test_confusion_picture_of_many_classes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    total = np.diag(rng.integers(1, 1000, 150))
    total[3, 7] = 500
    total[9] = 0  # never labelled
    small = Image.open(draw_confusion(tmp_path / "few.png", total[:4, :4], list("abcd")))
    large = Image.open(draw_confusion(tmp_path / "many.png", total, [f"class {i}" for i in range(150)]))
    assert small.size < large.size < (1300, 1300)
    assert np.asarray(large.convert("L")).std() > 5
