"""Objects drawn as label maps: overlaps, the background, what is counted, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conversion.dataset import DataSet, Instance, Picture
from conversion.label_maps import write_label_maps

LARGE = [[1.0, 1, 5, 1, 5, 4, 1, 4]]  # columns 1 to 4, rows 1 to 3
SMALL = {"size": [5, 6], "counts": [12, 1, 17]}  # column 2, row 2


def one(draw: Callable[..., Path], tmp_path: Path, *segmentations: object, name: str = "d/a.jpg") -> DataSet:
    """Return a data set of one image of 6x5 pixels, whose n-th object is of class n."""
    found = [Instance(label=n, box=(1, 1, 4, 3), segmentation=value) for n, value in enumerate(segmentations)]  # type: ignore[arg-type]
    picture = Picture(path=draw(tmp_path / "a.jpg", 6, 5), name=name, size=(6, 5), instances=found, source="a.json")
    return DataSet(names=("cat", "dog", "cow"), splits={"train": [picture]})


@pytest.mark.parametrize(("background", "none", "cat", "dog"), [(None, 255, 0, 1), ("other", 0, 1, 2)])
@pytest.mark.parametrize("small_first", [False, True])
def test_the_smaller_object_is_seen(
    background: str | None, none: int, cat: int, dog: int, small_first: bool, tmp_path: Path, draw: Callable[..., Path]
) -> None:
    data = one(draw, tmp_path, *((SMALL, LARGE) if small_first else (LARGE, SMALL)))
    lines = write_label_maps(data, tmp_path / "out", background=background)
    expected = np.full((5, 6), none, np.uint8)
    expected[1:4, 1:5] = dog if small_first else cat
    expected[2, 2] = cat if small_first else dog
    assert (np.asarray(Image.open(tmp_path / "out/labels/train/d/a.png")) == expected).all()
    assert (tmp_path / "out/images/train/d/a.jpg").is_symlink()
    names = (tmp_path / "out/classes.txt").read_text().splitlines()
    assert names == [*([background] if background else []), "cat", "dog", "cow"]
    assert lines[0] == "train: 1 label maps of split 'train', 2 objects drawn"


def test_what_is_counted(tmp_path: Path, draw: Callable[..., Path]) -> None:
    data = one(draw, tmp_path, LARGE, None, [[50.0, 50, 51, 50, 51, 51]])
    lines = write_label_maps(data, tmp_path / "out", copy=True)
    assert lines[1:3] == [
        "objects with a box alone, left out of the label maps: 1 (d/a.jpg)",
        "objects without a pixel in their image, left out: 1 (d/a.jpg)",
    ]
    assert not (tmp_path / "out/images/train/d/a.jpg").is_symlink()


def test_what_is_refused(tmp_path: Path, draw: Callable[..., Path]) -> None:
    for data, background, message in (
        (one(draw, tmp_path, None), None, r"no object of the split 'train' has a polygon or a mask to draw"),
        (one(draw, tmp_path, LARGE), "cat", r"4 classes; label maps hold 254 at most, whose names differ"),
        (one(draw, tmp_path, [["x"] * 6]), None, r"a\.json: an object of d/a\.jpg has a segmentation that is no list"),
        (one(draw, tmp_path, LARGE, name="../a.jpg"), None, r"names '\.\./a\.jpg', which is not a path inside"),
    ):
        with pytest.raises(ValueError, match=message):
            write_label_maps(data, tmp_path / "out", background=background)
        assert not (tmp_path / "out").exists()
