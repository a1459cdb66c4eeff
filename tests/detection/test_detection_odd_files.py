"""What a whole annotation file says wrongly: counted and named, dropped, put right, or refused with the way out."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from detection.data.check import check_coco
from detection.data.coco import images_of_both, read_coco
from detection.evaluation.matches import compressed
from detection.evaluation.score import evaluate_coco

Read = Callable[..., Any]


def item(number: int, image: int, x: float, y: float, side: float = 12, **changes: Any) -> dict[str, Any]:
    """A square object with its mask."""
    mask = [[x, y, x + side, y, x + side, y + side, x, y + side]]
    base = {"id": number, "image_id": image, "category_id": 1, "bbox": [x, y, side, side], "area": side * side}
    return {**base, "iscrowd": 0, "segmentation": mask, **changes}


def content(annotations: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    images = [{"id": n, "file_name": f"{n}.png", "height": 48, "width": 64} for n in (1, 2, 3)]
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "a"}], **changes}


def good() -> list[dict[str, Any]]:
    return [item(3 * n + k, n, 20 * k, 4 * n) for n in (1, 2, 3) for k in (0, 1, 2)]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Writes annotations of three images and reads them."""
    (tmp_path / "train").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (64, 48), (number, 0, 0)).save(tmp_path / "train" / f"{number}.png")

    def write_and_read(annotations: list[dict[str, Any]], **changes: Any) -> Any:
        path = tmp_path / "f.json"
        path.write_text(json.dumps(content(annotations, **changes)))
        return read_coco(path, data=tmp_path, split="train")

    return write_and_read


def scores(split: Any) -> dict[str, float]:
    """AP of the objects themselves, boxes and masks."""
    truth = split.ground_truth
    found = [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        | {"segmentation": compressed(a["segmentation"], height=48, width=64)}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
    values: dict[str, float] = {}
    for kind in ("bbox", "segm"):
        summary = evaluate_coco(truth, found, kind=kind).summary  # type: ignore[arg-type]
        values |= {f"{kind} {name}": value for name, value in summary.items() if name.startswith("ap")}
    return values


@pytest.mark.parametrize("area", [-1200, 2e10, 0, float("nan"), float("inf"), 10**400, 0.01])
def test_areas_that_cannot_be(read: Read, area: Any) -> None:
    split = read([{**a, "area": area} for a in good()])
    assert [a["area"] for a in split.ground_truth["annotations"]] == [144.0] * 9
    assert "areas that cannot be, replaced by the mask's or the box's: 9 (annotation 3 of 1.png: " in split.notes[0]
    values = scores(split)
    assert values == pytest.approx(dict.fromkeys(values, 100.0)) and "bbox ap_small" in values
    plain = read([{k: v for k, v in a.items() if k != "segmentation"} | {"area": area} for a in good()])
    assert [a["area"] for a in plain.ground_truth["annotations"]] == [144.0] * 9


def test_areas_that_can_be_are_kept(read: Read) -> None:
    split = read([{**a, "area": area} for a, area in zip(good(), (1, 100, 143.5, 160, 196, 30, 2, 3, 4), strict=True)])
    assert [a["area"] for a in split.ground_truth["annotations"]] == [1, 100, 143.5, 160, 196, 30, 2, 3, 4]
    assert split.notes == ()
    with pytest.raises(ValueError, match=r"f\.json: annotation 3 of 1\.png has area '144'; it must be a number of"):
        read([{**a, "area": "144"} for a in good()])


def test_crowds_as_text(read: Read) -> None:
    split = read([*good()[1:], {**good()[0], "iscrowd": "1"}, {**good()[0], "iscrowd": "0"}])
    assert sum(a["iscrowd"] for a in split.ground_truth["annotations"]) == 1
    assert split.notes == ("train: iscrowd as text, read as the number: 2 (annotation 3 of 1.png: '1', annotation 3 of"
                           " 1.png: '0')",)  # fmt: skip
    for value in (2, "yes", [], -1):
        with pytest.raises(ValueError, match=r"f\.json: annotation 3 of 1\.png has iscrowd .*; it must be 0 or 1\."):
            read([{**good()[0], "iscrowd": value}])


def test_masks_without_a_pixel_and_far_away(read: Read) -> None:
    sliver = [[10, 10, 10.2, 30, 10.1, 10]]
    twice = [good()[0]["segmentation"][0] * 2]  # what is drawn twice is erased
    far = [[1e9, 1e9, 2e9, 1e9, 2e9, 2e9]]
    split = read(
        [
            *good()[1:],
            {**good()[0], "segmentation": sliver},
            item(90, 2, 0, 30, segmentation=twice),
            item(91, 2, 0, 30, segmentation=far),
        ]
    )
    assert split.notes == (
        "train: masks without a pixel in their image, dropped: 2 (annotation 3 of 1.png, annotation 90 of 2.png)",
        "train: masks far outside of their image, dropped: 1 (annotation 91 of 2.png)",
    )
    assert min(scores(split).values()) == pytest.approx(100)


def test_masks_apart_from_their_boxes(read: Read) -> None:
    elsewhere = item(90, 2, 40, 30)["segmentation"]
    split = read([*good()[1:], {**good()[0], "segmentation": elsewhere}])
    assert split.notes == ("train: masks that do not touch their boxes, kept as they are: 1 (annotation 3 of 1.png)",)
    with pytest.raises(ValueError, match=r"f\.json: 9 of 9 masks do not touch their boxes; one of the two is for"):
        read([{**a, "bbox": [a["bbox"][0], 36, 12, 12], "segmentation": item(0, 1, 0, 0)["segmentation"]}
              for a in [item(n, 1 + n % 3, 30 + n, 0) for n in range(9)]])  # fmt: skip


def test_duplicates(read: Read) -> None:
    """Everything twice is a file merged twice; one of many is COCO's way."""
    split = read([*good(), *good()])
    assert len(split.ground_truth["annotations"]) == 9
    assert "exact duplicates of another annotation, dropped: 9 (annotation 3, annotation 4" in split.notes[0]
    many = [item(n, 1 + n % 3, n % 40, n // 2) for n in range(20)]
    split = read([*many, {**many[0], "id": 99}])
    assert len(split.ground_truth["annotations"]) == 21
    assert "exact duplicates of another annotation, kept, as COCO's own code does: 1 (annotation 99" in split.notes[0]


def test_one_file_under_two_ids(read: Read) -> None:
    images = [{"id": n, "file_name": name, "height": 48, "width": 64} for n, name in enumerate(("1.png", "./1.png"), 1)]
    split = read(good()[:6], images=images)
    assert split.notes == (
        "train: images of a file that another image id names too, each trained and scored on by itself: 1 (./1.png)",
    )


def test_normalised_boxes_are_refused(read: Read) -> None:
    shares = [{**a, "bbox": [a["bbox"][0] / 64, a["bbox"][1] / 48, 12 / 64, 12 / 48], "area": 0.05} for a in good()]
    for annotations in (shares, [{k: v for k, v in a.items() if k != "segmentation"} for a in shares]):
        with pytest.raises(ValueError, match=r"f\.json: all 9 boxes lie between 0 and 1.*multiply x and width by"):
            read(annotations)
    split = read([*good()[1:], {**good()[0], "bbox": [0, 4, 0.5, 0.5]}])
    assert "boxes of less than a pixel, kept: 1 (annotation 3 of 1.png: 0.5x0.5)" in split.notes[0]


def test_corners_are_refused(read: Read) -> None:
    def corners(a: dict[str, Any]) -> dict[str, Any]:
        x, y, width, height = a["bbox"]
        return {**a, "bbox": [x, y, x + width, y + height]}

    low = [corners(item(n, 1 + n % 3, 30 + n, 25)) for n in range(8)]
    without = [{k: v for k, v in a.items() if k != "segmentation"} for a in low]
    # few of these leave the image: their masks tell
    inside = [corners(item(n, 1 + n % 3, 8 + n, 10)) for n in range(8)]
    for annotations in (low, without, inside):
        with pytest.raises(ValueError, match=r"f\.json: \d of 8 boxes leave .* subtract the first two numbers from"):
            read(annotations)
    edge = [item(n, 1 + n % 3, 52, 36) for n in range(8)]
    edge = [{**a, "category_id": 1, "bbox": [52, 36 - n, 12, 12]} for n, a in enumerate(edge)]
    assert len(read(edge).ground_truth["annotations"]) == 8


def test_nothing_to_train_on_or_to_score(read: Read, tmp_path: Path) -> None:
    crowds = [{**a, "iscrowd": 1} for a in good()]
    with pytest.raises(ValueError, match=r"f\.json: each of its 9 annotations that can be used is a crowd"):
        read(crowds)
    with pytest.raises(ValueError, match=r"f\.json: holds 3 images and no annotation that can be used\.$"):
        read([])
    with pytest.raises(ValueError, match=r"no annotation that can be used: boxes of no size, dropped: 1 \(annotation"):
        read([{**good()[0], "bbox": [0, 0, 0, 0]}])
    read_file_text = content(crowds)
    (tmp_path / "f.json").write_text(json.dumps(read_file_text))
    found = check_coco(tmp_path, files=(tmp_path / "f.json",), sheet=tmp_path / "sheet.png")
    assert len(found.faults) == 1 and "f.json: each of its 9 annotations that can be used is a crowd" in found.faults[0]


def test_names_stay_in_their_folder(read: Read, tmp_path: Path) -> None:
    """By their letters: folders and files that are links go on working."""
    outside = tmp_path.parent / f"{tmp_path.name}outside.png"
    Image.new("RGB", (64, 48)).save(outside)

    def named(name: str) -> list[dict[str, Any]]:
        return [{"id": 1, "file_name": name, "height": 48, "width": 64}]

    for name in (str(outside), f"../../{outside.name}", f"a/../../../{outside.name}"):
        with pytest.raises(ValueError, match=r"f\.json: image 1 has file_name .*outside\.png', which is not a path in"):
            read(good()[:3], images=named(name))
    within = str(tmp_path / "train" / "1.png")
    assert read(good()[:3], images=named(within)).records[0]["file_name"] == within
    assert read(good()[:3], images=named("train/1.png")).records[0]["file_name"] == within
    (tmp_path / "train" / "linked.png").symlink_to(outside)
    assert read(good()[:3], images=named("linked.png")).records[0]["file_name"].endswith("train/linked.png")
    os.rename(tmp_path / "train", tmp_path / "elsewhere")
    (tmp_path / "train").symlink_to(tmp_path / "elsewhere")
    assert len(read(good()).records) == 3


@pytest.mark.parametrize(
    ("place", "value"),
    [("width", 2**63), ("height", True), ("file_name", 3), ("file_name", "a\0"), ("neg_category_ids", None)],
)
def test_images_of_odd_fields(read: Read, place: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"f\.json: image 1 has .*must be"):
        read(good()[:3], images=[{"id": 1, "file_name": "1.png", "height": 48, "width": 64, place: value}])


@pytest.mark.parametrize("image_id", [None, True, 1.0, [1]])
def test_annotations_of_odd_images(read: Read, image_id: Any) -> None:
    with pytest.raises(ValueError, match=r"f\.json: annotation 3 has image_id .*; it must be an image's id"):
        read([{**good()[0], "image_id": image_id}])


def test_validation_images_that_are_trained_on(read: Read, tmp_path: Path) -> None:
    train = read(good())
    (tmp_path / "linked").symlink_to(tmp_path / "train")
    (tmp_path / "v.json").write_text(json.dumps(content(good())))
    val = read_coco(tmp_path / "v.json", data=tmp_path, split="linked")
    assert images_of_both(train, val) == ("images that are trained on too: 3 of 3 (1.png, 2.png, 3.png)",)
    (tmp_path / "other").mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (64, 48)).save(tmp_path / "other" / f"{number}.png")
    assert images_of_both(train, read_coco(tmp_path / "v.json", data=tmp_path, split="other")) == ()


def test_sides_that_are_exchanged(read: Read, tmp_path: Path) -> None:
    """The EXIF orientation is blamed only where it is the reason."""
    read(good())
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (48, 64)).save(tmp_path / "train" / "1.png")
    Image.new("RGB", (64, 48)).save(tmp_path / "train" / "2.png", exif=exif)
    (tmp_path / "f.json").rename(tmp_path / "train.json")
    (fault,) = check_coco(tmp_path, files=(tmp_path / "train.json",), sheet=tmp_path / "sheet.png").faults
    assert (
        "1.png is 48x64, stated 64x48. The annotations have width and height exchanged; the file has no EXIF" in fault
    )
    assert "2.png is 48x64, stated 64x48. The file's EXIF orientation turns it; annotate the upright image." in fault
