"""The image files of a folder, and which of them are taken."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.images.reading import evenly_spaced, find_images, open_images


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


def test_hidden_and_system_images_are_left_out_and_said(tmp_path: Path) -> None:
    for name in ("b.jpg", ".hidden/c.jpg", "a/@eaDir/b.jpg/thumb.jpg", "a/._b.png", "a/d.png", "__MACOSX/x.tar"):
        path = tmp_path / ".data" / "train" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    folder = tmp_path / ".data" / "train"  # what lies above the folder does not count
    images = open_images(folder)
    note = "train: 4 images hidden or of the system, left out (.hidden/c.jpg, ...)"
    assert [images.image_id(k) for k in range(len(images))] == ["a/d.png", "b.jpg"] and images.notes == (note,)
    with pytest.warns(UserWarning, match=re.escape(note)):
        assert find_images(folder) == [folder / "a/d.png", folder / "b.jpg"]
    for name in ("a/d.png", "b.jpg"):
        (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"nor do its subfolders. Left out: {note}.")):
        find_images(folder)


@given(st.integers(0, 50), st.integers(1, 12))
def test_evenly_spaced(length: int, most: int) -> None:
    chosen = evenly_spaced(range(length), most)
    assert len(chosen) == min(length, most) == len(set(chosen))
    assert chosen == sorted(chosen) and chosen[:1] == [*range(length)][:1]
    gaps = {after - before for before, after in pairwise(chosen)}
    assert not gaps or max(gaps) - min(gaps) <= 1
