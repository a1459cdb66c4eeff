"""Lists of classes and of images with any damage: read as they stand, or refused by the file's name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmark.compare.groups import read_groups
from classification.subset import listed_images, relative
from segmentation.data.classes import Classes, read_class_list, read_object_info
from segmentation.data.layout import LAYOUTS

CLASS_LISTS = ("sky\nbär\nred car\n", "sky\t#0000ff\nbär\t#00ff00\nred car\t#ff0000\n")
LABEL_MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\nbär:128,0,0::\nred car:0,128,0:wheel,door:\n"
OBJECT_INFO = "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t4\t2\twall\n2\t0.1\t4\t2\tbuilding, edifice\n3\t0.1\t1\t0\tbär\n"
ENCODINGS = ("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1")
NAMES = ("a", "b", "my cat 1", "été")


@pytest.fixture
def text(damaged_bytes: Any) -> Callable[..., Callable[[random.Random], bytes]]:
    """`text(*forms)`: cases of one of some texts in some encoding, most of them damaged."""

    def of(*forms: str) -> Callable[[random.Random], bytes]:
        def case(rng: random.Random) -> bytes:
            form = rng.choice(forms).replace("\n", rng.choice(("\n", "\r\n", "\r")))
            content = form.encode(rng.choice(ENCODINGS), errors="replace")
            return bytes(damaged_bytes(rng, content)) if rng.random() < 0.9 else content

        return case

    return of


def check_classes(classes: Classes) -> None:
    """Names are what people can tell apart; colours are bytes, one each."""
    assert classes.names and all(name == name.strip() != "" for name in classes.names)
    assert classes.palette is None or len(classes.palette) == len(classes.names)
    assert all(0 <= level <= 255 for colour in classes.palette or () for level in colour)


@pytest.mark.parametrize("name", ["classes.txt", "labelmap.txt"])
def test_class_lists(name: str, campaign: Any, text: Any, tmp_path: Path) -> None:
    path = tmp_path / name

    def read(content: bytes) -> None:
        path.write_bytes(content)
        classes = read_class_list(path)
        check_classes(classes)
        assert len(set(classes.names)) == len(classes.names)

    campaign.run(text(*(CLASS_LISTS if name == "classes.txt" else (LABEL_MAP,))), read, cases=300, names=name)


def test_object_info(campaign: Any, text: Any, tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "objectInfo3.txt").write_bytes(content)
        classes = read_object_info(tmp_path)
        assert classes is not None
        check_classes(classes)

    campaign.run(text(OBJECT_INFO), read, cases=300, names="objectInfo3.txt")


def test_voc_lists(campaign: Any, text: Any, tmp_path: Path) -> None:
    for folder, ending in (("JPEGImages", "jpg"), ("SegmentationClass", "png"), ("ImageSets/Segmentation", "txt")):
        (tmp_path / folder).mkdir(parents=True)
        for name in NAMES if ending != "txt" else ():
            (tmp_path / folder / f"{name}.{ending}").touch()
    listing = tmp_path / "ImageSets" / "Segmentation" / "train.txt"

    def read(content: bytes) -> None:
        listing.write_bytes(content)
        for pair in LAYOUTS["voc"].pairs(tmp_path, "train"):
            assert pair.image.is_file() and pair.labels.is_file() and pair.image.stem == pair.labels.stem
            assert pair.image.parent == tmp_path / "JPEGImages" and pair.image.stem in NAMES

    lists = ("\n".join(NAMES), "a b\nété\n", "a  1\nb -1\n", "a.jpg\nb\n", "../a\n")
    campaign.run(text(*lists), read, cases=300, names="train.txt")


def test_groups_of_test_images(campaign: Any, text: Any, tmp_path: Path) -> None:
    path = tmp_path / "groups.csv"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        groups = read_groups(path)
        assert all(name and group for name, group in groups.items())

    forms = ("a/0001TP_1.png,x\nété.png,y\n\nc.png,x\n", 'a.png,"x,y"\na.png,"x,y"\n', "a.png,x\na.png,y\n")
    campaign.run(text(*forms), read, cases=300, names="groups.csv")


def test_lists_of_training_images(campaign: Any, text: Any, tmp_path: Path) -> None:
    root = Path("/data/train")
    samples = [(f"{root}/{folder}/{name}.png", label) for label, folder in enumerate(("x", "y")) for name in NAMES]
    path = tmp_path / "list.txt"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        kept = listed_images(samples, root, path)
        assert kept and kept == [sample for sample in samples if sample in kept]
        decoded = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", errors="ignore")
        if content[:4] != b"\xff\xfe\0\0":  # UTF-32, which begins as UTF-16 does
            assert all(relative(image, root) in decoded for image, _ in kept)

    lines = [relative(image, root) for image, _ in samples]
    campaign.run(text("\n".join(lines), "\n".join(lines[:2]), "x\\a.png\n", "a.png"), read, cases=300, names="list.txt")
