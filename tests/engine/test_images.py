"""The image files of a folder, and which of them are taken."""

from itertools import pairwise
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from engine.images import evenly_spaced, open_images


def test_files_that_are_no_images_by_their_names_are_counted(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "d.gif", "a/e.GIF", "list.txt", ".DS_Store"):
        path = tmp_path / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    images = open_images(tmp_path / "train")
    assert [images.image_id(k) for k in range(len(images))] == ["a/c.png", "b.JPG"]
    assert images.notes == ("train: no images by their names, left out: 2 .gif, 1 .txt, 1 no ending",)
    for name in ("d.gif", "a/e.GIF", "list.txt", ".DS_Store"):
        (tmp_path / "train" / name).unlink()
    assert open_images(tmp_path / "train").notes == ()


@given(st.integers(0, 50), st.integers(1, 12))
def test_evenly_spaced(length: int, most: int) -> None:
    chosen = evenly_spaced(range(length), most)
    assert len(chosen) == min(length, most) == len(set(chosen))
    assert chosen == sorted(chosen) and chosen[:1] == [*range(length)][:1]
    gaps = {after - before for before, after in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1
