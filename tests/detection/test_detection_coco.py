"""Reading of COCO files: what is kept, dropped, counted and refused."""

import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
from PIL import Image

from detection.data import coco
from detection.data.coco import annotation_file, check_same_categories, read_coco
from detection.data.coco_file import read_file
from detection.data.run_lengths import unpacked_runs
from detection.data.store import open_store, write_store

SQUARE = [[10.0, 10.0, 30.0, 10.0, 30.0, 30.0, 10.0, 30.0]]


def annotation(number: int, image: int = 1, **changes: Any) -> dict[str, Any]:
    base = {
        "id": number,
        "image_id": image,
        "category_id": 3,
        "bbox": [10, 10, 20, 20],
        "area": 400.0,
        "iscrowd": 0,
    }
    return {**base, "segmentation": SQUARE, **changes}


def write(root: Path, annotations: list[dict[str, Any]], *, split: str = "train", **changes: Any) -> Path:
    """Write three 64x48 images (width x height) and their annotations; return the JSON's path."""
    (root / split).mkdir(parents=True, exist_ok=True)
    (root / "annotations").mkdir(exist_ok=True)
    for number in (1, 2, 3):
        Image.fromarray(np.full((48, 64, 3), 40 * number, np.uint8)).save(root / split / f"{number}.jpg")
    content = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (3, 1, 2)],
        "annotations": annotations,
        "categories": [{"id": 90, "name": "kite"}, {"id": 3, "name": "car"}],
        **changes,
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content))
    return path


def read(root: Path, annotations: list[dict[str, Any]], **changes: Any) -> Any:
    return read_coco(write(root, annotations, **changes), data=root, split="train")


def test_ids_are_remapped_and_images_sorted(tmp_path: Path) -> None:
    split = read(tmp_path, [annotation(7, category_id=90), annotation(9, image=2)])
    assert [record["image_id"] for record in split.records] == [1, 2, 3]
    assert [(c.id, c.name) for c in split.categories] == [(3, "car"), (90, "kite")]
    assert [a["category_id"] for record in split.records for a in record["annotations"]] == [1, 0]
    assert [a["category_id"] for a in split.ground_truth["annotations"]] == [90, 3]
    assert [a["id"] for a in split.ground_truth["annotations"]] == [1, 2]
    assert split.masks and split.notes == ()


def test_bad_boxes_are_counted_and_dropped_or_clipped(tmp_path: Path) -> None:
    split = read(
        tmp_path,
        [
            annotation(1),
            annotation(2, bbox=[10, 10, 0, 5]),
            annotation(3, bbox=[64, 0, 10, 10]),
            annotation(4, bbox=[60, 40, 10, 20], segmentation=[[60, 40, 64, 40, 64, 48, 60, 48]], area=32),
            annotation(5, bbox=[54, 38, 10.5, 10.5], segmentation=[[54, 38, 64, 38, 64, 48]], area=50),
            annotation(6, segmentation=[[1, 1, 2, 2]]),
            annotation(7, image=99),
        ],
    )
    boxes = [a["bbox"] for a in split.ground_truth["annotations"]]
    assert boxes == [[10, 10, 20, 20], [60, 40, 4, 8], [54, 38, 10.5, 10.5]]
    assert split.notes == (
        "train: annotations of images that the file does not list, dropped: 1 (annotation 7)",
        "train: boxes of no size, dropped: 1 (annotation 2 of 1.jpg: 0x5)",
        "train: boxes outside of their image, dropped: 1 (annotation 3 of 1.jpg: x 64, y 0)",
        "train: boxes partly outside of their image, clipped: 1 (annotation 4 of 1.jpg)",
        "train: annotations without a polygon of 3 points or more, dropped: 1 (annotation 6 of 1.jpg)",
    )


def test_missing_folder_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; --data is the folder that holds train2017/"):
        annotation_file(tmp_path / "no", "train2017", None)


def test_missing_annotations_say_what_was_found(tmp_path: Path) -> None:
    write(tmp_path, [annotation(1)])
    with pytest.raises(FileNotFoundError) as error:
        annotation_file(tmp_path, "train2017", None)
    assert "instances_train2017.json: no such annotation file" in str(error.value)
    assert "holds instances_train.json" in str(error.value)
    assert "holds annotations/, train/" in str(error.value)
    assert "--train-split" in str(error.value)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds nothing"):
        annotation_file(tmp_path, "train2017", None)


def test_truncated_json_names_file_and_position(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"instances_train\.json: not valid JSON .*char.*200 bytes and may be"):
        read_coco(path, data=tmp_path, split="train")


def test_json_of_another_format(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    path.write_text("[]")
    with pytest.raises(ValueError, match="no list 'images' at the top level"):
        read_coco(path, data=tmp_path, split="train")


def test_image_that_is_not_there(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    (tmp_path / "train" / "2.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"names 1 of 3 images that are not in .*train: 2\.jpg\.$"):
        read_coco(path, data=tmp_path, split="train")
    (tmp_path / "train" / "2.JPG").touch()
    with pytest.raises(FileNotFoundError, match=r"for '2\.jpg' there is '2\.JPG', which differs in its case\.$"):
        read_coco(path, data=tmp_path, split="train")


def test_missing_image_folder_lists_where_it_looked(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    (tmp_path / "train").rename(tmp_path / "pictures")
    with pytest.raises(FileNotFoundError, match=r"looked for 1\.jpg.*holds annotations/, pictures/"):
        read_coco(path, data=tmp_path, split="train")


def test_images_beside_an_explicit_file(tmp_path: Path) -> None:
    path = write(tmp_path, [annotation(1)])
    moved = tmp_path / "train" / "_annotations.coco.json"
    path.rename(moved)
    assert annotation_file(tmp_path, "train2017", str(moved)) == moved
    split = read_coco(moved, data=tmp_path, split="train2017")
    assert split.records[0]["file_name"] == str(tmp_path / "train" / "1.jpg")


def test_unlisted_category(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"annotation 1 has category_id 4, which .* lists 3, 90"):
        read(tmp_path, [annotation(1, category_id=4)])


def test_box_that_is_no_box(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"bbox \[1, 2, 3\]; it must be four numbers"):
        read(tmp_path, [annotation(1, bbox=[1, 2, 3])])


def test_run_lengths_of_another_size(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run lengths for an image of \[64, 48\].*the image is \[48, 64\]"):
        read(tmp_path, [annotation(1, segmentation={"size": [64, 48], "counts": [0, 10, 3062]})])


def test_some_masks_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="1 of 2 annotations have a segmentation"):
        read(tmp_path, [annotation(1), annotation(2, segmentation=[])])


def test_no_masks(tmp_path: Path) -> None:
    assert not read(tmp_path, [annotation(1, segmentation=[])]).masks


def test_no_usable_annotation(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds 3 images and no annotation that can be used"):
        read(tmp_path, [annotation(1, bbox=[0, 0, 0, 0])])


def test_categories_that_differ(tmp_path: Path) -> None:
    train = read(tmp_path, [annotation(1)])
    changed = [{"id": 3, "name": "car"}, {"id": 90, "name": "dragon"}]
    path = write(tmp_path, [annotation(1)], split="val", categories=changed)
    val = read_coco(path, data=tmp_path, split="val")
    with pytest.raises(ValueError, match="only in training 90 kite; only in validation 90 dragon"):
        check_same_categories(train, val)


def test_real_files_need_no_repair(real_data: Path) -> None:
    root = real_data / "det_coco"
    for split, images, boxes in (("train", 196, 1750), ("val", 51, 400)):
        path = root / "annotations" / f"instances_{split}_super12.json"
        found = read_coco(path, data=root, split=split)
        assert (len(found.records), len(found.ground_truth["annotations"])) == (images, boxes)
        assert len(found.categories) == 12 and found.masks and found.notes == ()


def test_run_lengths_of_too_few_pixels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"run lengths of 10 pixels; the image of \[48, 64\] has 3,072"):
        read(tmp_path, [annotation(1, segmentation={"size": [48, 64], "counts": [0, 10]})])


def test_compressed_run_lengths_of_another_image(tmp_path: Path) -> None:
    """pycocotools would read them as a mask of the stated size, with pixels that are not theirs."""
    random = np.random.default_rng(0)
    for height, width in [(48, 64), (1, 1), (700, 900), (33, 1)]:
        for share in (0.0, 0.02, 0.5, 1.0):
            mask = rle.encode(np.asfortranarray(random.random((height, width)) < share, np.uint8))
            assert unpacked_runs(mask["counts"].decode()).sum() == height * width
    small = rle.encode(np.asfortranarray(np.eye(10, dtype=np.uint8)))["counts"].decode()
    with pytest.raises(ValueError, match=r"run lengths of 100 pixels; the image of \[48, 64\] has 3,072"):
        read(tmp_path, [annotation(1, segmentation={"size": [48, 64], "counts": small})])
    for text in ("", "o", "hello\x01", "caf\u00e9"):
        with pytest.raises(ValueError, match=r"annotation 1 of 1\.jpg has run lengths that end within a number or"):
            read(tmp_path, [annotation(1, segmentation={"size": [48, 64], "counts": text})])


def test_a_polygon_with_text_in_it(tmp_path: Path) -> None:
    for bad in ([1, 2, 3, "4", 5, 6], [1, 2, 3, None, 5, 6], [1, 2, 3, float("nan"), 5, 6], "abcdef"):
        with pytest.raises(ValueError, match=r"annotation 1 of 1\.jpg has a segmentation that is n"):
            read(tmp_path, [annotation(1, segmentation=[bad])])


def test_ids_listed_twice(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": "1.jpg", "height": 48, "width": 64} for n in (1, 2, 2)]
    with pytest.raises(ValueError, match=r"`images` lists 1 ids more than once: 2; give each its own"):
        read(tmp_path, [annotation(1)], images=images)
    with pytest.raises(ValueError, match=r"`categories` lists 1 ids more than once: 3"):
        read(tmp_path, [annotation(1)], categories=[{"id": 3, "name": "car"}, {"id": 3, "name": "kite"}])


def test_zero_classes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`categories` is empty; list an id and a name for each class"):
        read(tmp_path, [annotation(1)], categories=[])


def test_split_without_annotations(tmp_path: Path) -> None:
    path = write(tmp_path, [])
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"no list 'annotations'.*test2017, can be neither trained nor scored on"):
        read_coco(path, data=tmp_path, split="train")


def test_ids_that_are_text(tmp_path: Path) -> None:
    """All text is taken as it is; a mixture is refused, and so is a category given as text in the annotation alone."""
    categories = [{"id": "b", "name": "kite"}, {"id": "a", "name": "car"}]
    images = [{"id": f"no {n}", "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (3, 1, 2)]
    annotations = [annotation(1, image="no 2", category_id="b")]  # type: ignore[arg-type]
    split = read(tmp_path, annotations, categories=categories, images=images)
    assert [c.id for c in split.categories] == ["a", "b"]
    assert [r["image_id"] for r in split.records] == ["no 1", "no 2", "no 3"]
    assert split.records[1]["annotations"][0]["category_id"] == 1
    assert split.ground_truth["annotations"][0]["category_id"] == "b"
    mixed = [{"id": "3", "name": "car"}, {"id": 4, "name": "kite"}]
    with pytest.raises(ValueError, match=r"ids of `categories` must be all whole numbers or all text; it has '3', 4"):
        read(tmp_path, [annotation(1)], categories=mixed)
    with pytest.raises(ValueError, match=r"annotation 1 has category_id '3', which `categories` does not list; it.* 3"):
        read(tmp_path, [annotation(1, category_id="3")])


def test_lvis(tmp_path: Path) -> None:
    """LVIS v1 has no iscrowd and no file_name, and says what is known to be absent."""
    url = "http://images.cocodataset.org/train/{}.jpg"
    images = [
        {"id": n, "coco_url": url.format(n), "height": 48, "width": 64, "neg_category_ids": [n, 90]}
        | {"not_exhaustive_category_ids": [3] * (n == 2)}
        for n in (3, 1, 2)
    ]
    plain = {key: value for key, value in annotation(1).items() if key != "iscrowd"}
    split = read(tmp_path, [plain], images=images)
    records = list(split.records)
    assert [r["name"] for r in records] == ["train/1.jpg", "train/2.jpg", "train/3.jpg"]
    assert all(Path(r["file_name"]).is_file() for r in records)
    assert [r["neg_category_ids"] for r in records] == [[1, 90], [2, 90], [3, 90]]
    assert [r["not_exhaustive_category_ids"] for r in records] == [[], [3], []]
    assert records[0]["annotations"][0]["iscrowd"] == 0


def test_frequencies_of_lvis(tmp_path: Path, cached: Path) -> None:
    """Kept in the cache; some letters alone are refused, and a field of that name elsewhere means nothing."""
    images = [{"id": n, "file_name": f"{n}.jpg", "height": 48, "width": 64} for n in (1, 2, 3)]
    marked = [{**image, "neg_category_ids": []} for image in images]
    categories = [{"id": 90, "name": "kite", "frequency": "f"}, {"id": 3, "name": "car", "frequency": "r"}]
    for _ in range(2):
        split = read(tmp_path, [annotation(1)], images=marked, categories=categories)
        assert [c.frequency for c in split.categories] == ["r", "f"]
        assert [c["frequency"] for c in split.ground_truth["categories"]] == ["r", "f"]
    categories[0]["frequency"] = 0.1
    with pytest.raises(
        ValueError, match=r"category 90 has frequency 0\.1; in LVIS's format each category has 'r', 'c'"
    ):
        read(tmp_path, [annotation(1)], images=marked, categories=categories)
    split = read(tmp_path, [annotation(1)], images=images, categories=categories)
    assert "frequency" not in split.ground_truth["categories"][0]


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own, which takes files of any size."""
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(coco, "CACHED_FROM", 0)
    return tmp_path / "cache"


def mixed_annotations() -> list[dict[str, Any]]:
    counts = {"size": [48, 64], "counts": [0, 10, 3062]}
    return [
        annotation(1),
        annotation(2, image=2, segmentation=[*SQUARE, [1, 1, 2, 2, 3, 1.25]]),
        annotation(3, image=2, segmentation=counts, iscrowd=1, bbox=[0, 0, 1, 10], area=10),
        annotation(4, bbox=[0, 0, 0, 1]),
    ]


def test_the_cache_gives_back_what_was_read(tmp_path: Path, cached: Path) -> None:
    path = write(tmp_path, mixed_annotations())
    first, second = (read_coco(path, data=tmp_path, split="train") for _ in range(2))
    plain = read_file(path)
    assert first.store.file == second.store.file == next(cached.iterdir()) and plain.file is None
    assert isinstance(second.store.arrays.point, np.memmap)
    assert second.notes == first.notes == ("train: boxes of no size, dropped: 1 (annotation 4 of 1.jpg: 0x1)",)
    for split in (first, second):
        assert split.categories == plain.categories and split.masks
        assert [split.store.annotations(n) for n in range(3)] == [plain.annotations(n) for n in range(3)]
        assert [split.store.image(n) for n in range(3)] == [plain.image(n) for n in range(3)]
    assert [len(record["annotations"]) for record in second.records] == [1, 2, 0]
    assert second.records.objects.tolist() == [1, 1, 0]


def test_a_pickled_store_is_its_path(tmp_path: Path, cached: Path) -> None:
    store = read_coco(write(tmp_path, mixed_annotations()), data=tmp_path, split="train").store
    sent = pickle.dumps(store)
    assert len(sent) < 500
    assert pickle.loads(sent).annotations(1) == store.annotations(1)
    in_memory = read_file(tmp_path / "annotations" / "instances_train.json")
    assert pickle.loads(pickle.dumps(in_memory)).annotations(1) == store.annotations(1)


def test_a_changed_file_is_read_again(tmp_path: Path, cached: Path) -> None:
    path = write(tmp_path, mixed_annotations())
    read_coco(path, data=tmp_path, split="train")
    write(tmp_path, [annotation(1), annotation(2, bbox=[10, 10, 19, 20])])
    split = read_coco(path, data=tmp_path, split="train")
    assert len(split.store.arrays.area_A) == 2
    assert "annotations changed since they were cached; read again" in split.notes[-1]
    assert read_coco(path, data=tmp_path, split="train").notes == ()


def test_a_touched_file_is_not_read_again(tmp_path: Path, cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, [annotation(1)])
    read_coco(path, data=tmp_path, split="train")
    os.utime(path, (1, 1))
    monkeypatch.setattr(coco, "read_file", lambda _: pytest.fail("read again"))
    for _ in range(2):
        split = read_coco(path, data=tmp_path, split="train")
        assert split.notes == () and len(split.store.annotations(0)) == 1


@pytest.mark.parametrize("damage", ["short", "header", "content", "version", "empty"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, cached: Path, damage: str) -> None:
    path = write(tmp_path, mixed_annotations())
    read_coco(path, data=tmp_path, split="train")
    kept = next(cached.iterdir())
    content = bytearray(kept.read_bytes())
    if damage == "short":
        content = content[:-1]
    elif damage == "header":
        content[content.index(b"1.jpg")] ^= 1
    elif damage == "content":
        content[content.rindex(b"1.jpg")] ^= 1
    elif damage == "version":
        content[: content.index(b"\n")] = b"mae-transfer annotations 0"
    else:
        content = bytearray()
    kept.write_bytes(content)
    split = read_coco(path, data=tmp_path, split="train")
    assert "cache not usable, read again: " in split.notes[-1] and str(kept) in split.notes[-1]
    assert len(read_coco(path, data=tmp_path, split="train").notes) == 1


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path, cached: Path) -> None:
    path = write(tmp_path, mixed_annotations())
    cached.write_text("a file where the folder should be")
    split = read_coco(path, data=tmp_path, split="train")
    assert "annotations not cached, so that every start reads them again: " in split.notes[-1]
    assert len(split.store.annotations(1)) == 2


def test_small_files_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAE_TRANSFER_CACHE", str(tmp_path / "cache"))
    read(tmp_path, [annotation(1)])
    assert not (tmp_path / "cache").exists()


def test_a_stored_data_set_without_masks(tmp_path: Path) -> None:
    store = read_file(write(tmp_path, [annotation(1, segmentation=[])]))
    write_store(tmp_path / "a.bin", store, source={})
    assert open_store(tmp_path / "a.bin").annotations(0) == store.annotations(0)
    assert "segmentation" not in store.annotations(0)[0]
