"""The ADE20K layout: classes, label maps, readers, and what is refused with which message."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.images.reading import UnreadableImageError
from engine.training.seeding import seeded
from segmentation.data.classes import Classes, palette_of, read_object_info
from segmentation.data.labels import decode, from_one
from segmentation.data.layout import LAYOUTS, open_folder
from segmentation.data.mapping import (
    FitInto,
    PairedImages,
    ReadLabelMap,
    ReadUprightImage,
    train_pipeline,
    val_pipeline,
)
from segmentation.host import ADE20KDataset, LoadAnnotations, Resize


def labels(folder: Path, split: str = "training", number: int = 0) -> Path:
    """Path of a label map."""
    return folder / "annotations" / split / f"{number}.png"


def relabel(path: Path, value: int, dtype: type = np.uint8) -> None:
    """Put one pixel of a label map to another value."""
    label = np.asarray(Image.open(path)).astype(dtype)
    label[5, 5] = value
    Image.fromarray(label).save(path)


def read(folder: Path, index: int = 0) -> dict:
    """One evaluation sample."""
    opened = open_folder(folder)
    return PairedImages(opened.train.pairs, opened.classes, val_pipeline(opened.train.label_mapping, resize=(40, 32)))[
        index
    ]


def test_open_folder(write_folder) -> None:
    folder = open_folder(write_folder())
    assert folder.classes.names == ("left", "dark", "bright")
    assert [pair.image_id for pair in folder.train.pairs] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    assert len(folder.val.pairs) == 3
    assert folder.notes == ("7 label maps read: 3 of 3 classes occur",)


def test_classes_from_the_highest_label(write_folder) -> None:
    folder = write_folder(names=None)
    assert open_folder(folder).classes == Classes(("class 1", "class 2", "class 3"), None)
    assert "no objectInfo<N>.txt: 3 classes" in open_folder(folder).notes[0]
    relabel(labels(folder), 255)  # ignored, so no class
    assert len(open_folder(folder).classes.names) == 3
    relabel(labels(folder, "validation"), 150)
    classes = open_folder(folder).classes
    assert classes.names[:3] == ("wall", "building", "sky")
    assert classes.palette is not None and classes.palette[0] == (120, 120, 120)


def test_names_of_ade20k_with_spaces_and_commas(tmp_path: Path) -> None:
    lines = ["Idx\tRatio\tTrain\tVal\tName", "1\t0.1\t1\t1\twall", "2\t0.1\t1\t1\tbuilding, edifice"]
    (tmp_path / "objectInfo2.txt").write_text("\n".join(lines) + "\n")
    assert read_object_info(tmp_path) == Classes(("wall", "building, edifice"), None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Name\nwall\n", "columns Idx and Name"),
        ("Idx\tName\n1\twall\n3\tsky\n", "must count 1, 2, 3"),
    ],
)
def test_class_list_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "objectInfo2.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_object_info(tmp_path)


def test_missing_and_empty_folders(write_folder, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"looked for images/training .* found no such folder"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "coco").mkdir()
    (tmp_path / "coco" / "train2017").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for images/training .* found train2017/ in"):
        open_folder(tmp_path / "coco")
    folder = write_folder()
    for path in (folder / "images" / "validation").iterdir():
        path.unlink()
    with pytest.raises(FileNotFoundError, match="validation: holds no image file"):
        open_folder(folder)


def test_images_without_label_maps_and_the_reverse(write_folder) -> None:
    folder = write_folder()
    labels(folder, number=1).unlink()
    (folder / "images" / "training" / "2.jpg").unlink()
    message = r"1 of 3 images have no label map \(1\) and 1 of 3 label maps have no image \(2\)"
    with pytest.raises(ValueError, match=message):
        open_folder(folder)


def test_two_images_for_one_label_map(write_folder) -> None:
    folder = write_folder()
    Image.new("RGB", (40, 32)).save(folder / "images" / "training" / "0.png")
    with pytest.raises(ValueError, match=r"0.jpg and 0.png would share one label map"):
        open_folder(folder)


def test_label_above_the_class_count_names_file_value_and_limit(write_folder, monkeypatch) -> None:
    folder = write_folder()
    relabel(labels(folder), 9)
    message = re.escape(f"{labels(folder)}: holds label 9, but the data set has 3 classes (labels 1 to 3;")
    with pytest.raises(ValueError, match=message):
        open_folder(folder)
    monkeypatch.setattr("segmentation.data.layout.CENSUS_LIMIT", 0)  # a large data set: found when it is loaded
    with pytest.raises(ValueError, match=message):
        read(folder)


def test_wide_labels_do_not_wrap(write_folder) -> None:
    folder = write_folder()
    relabel(labels(folder), 257, np.uint16)  # 257 is 1 in eight bits
    with pytest.raises(ValueError, match="holds label 257"):
        open_folder(folder)


def test_sixteen_bit_label_maps_are_read(write_folder) -> None:
    folder = write_folder()
    before = read(folder)["data_samples"].gt_sem_seg.data
    Image.fromarray(np.asarray(Image.open(labels(folder))).astype(np.uint16)).save(labels(folder))
    assert Image.open(labels(folder)).mode.startswith("I")
    assert (read(folder)["data_samples"].gt_sem_seg.data == before).all()


def test_one_class_is_refused(write_folder) -> None:
    with pytest.raises(ValueError, match=r"1 class\(es\); segmentation needs 2 to 254"):
        open_folder(write_folder(names=("left",)))


def test_colour_coded_label_map(write_folder) -> None:
    folder = write_folder()
    colours = np.zeros((32, 40, 3), dtype=np.uint8)
    colours[:, 20:, 0] = 128
    Image.fromarray(colours).save(labels(folder))
    message = r"0.png: a label map of mode RGB \(3 channels, 2 colours: a colour-coded map\).*make_semantic.py colours"
    with pytest.raises(ValueError, match=message):
        open_folder(folder)
    Image.open(folder / "annotations" / "training" / "1.png").convert("RGB").save(labels(folder))
    with pytest.raises(ValueError, match=r"the colour ones equal: a greyscale map saved in colour"):
        open_folder(folder)
    Image.fromarray(np.zeros((32, 40), dtype=np.float32)).save(labels(folder).with_suffix(".tif"))
    labels(folder).with_suffix(".tif").rename(labels(folder))
    with pytest.raises(ValueError, match=r"mode F \(one channel that holds no whole numbers\)"):
        open_folder(folder)


def test_black_and_white_masks(write_folder) -> None:
    folder = write_folder()
    for path in (folder / "annotations").rglob("*.png"):
        label = np.asarray(Image.open(path))
        Image.fromarray(np.where(label == 1, 255, 0).astype(np.uint8)).save(path)
    with pytest.raises(ValueError, match=r"nothing is labelled in 7 label maps .*black-and-white masks, in which 255"):
        open_folder(folder)


def test_labels_all_ignored(write_folder) -> None:
    folder = write_folder()
    for path in (folder / "annotations").rglob("*.png"):
        Image.new("L", (40, 32), 0).save(path)
    with pytest.raises(ValueError, match=r"nothing is labelled in 7 label maps .*write class numbers\.$"):
        open_folder(folder)


def test_empty_class_list(write_folder) -> None:
    folder = write_folder(names=())
    with pytest.raises(ValueError, match=r"objectInfo0\.txt: lists no class"):
        open_folder(folder)


def test_palette_and_one_bit_maps_are_index_maps(write_folder) -> None:
    folder = write_folder()
    before = [sample["data_samples"].gt_sem_seg.data for sample in (read(folder, 0), read(folder, 1))]
    indexed = Image.open(labels(folder)).convert("P")
    indexed.putpalette([value for number in range(256) for value in (number, 0, 255 - number)])
    indexed.save(labels(folder))
    ones = Image.fromarray(np.ones((32, 40), dtype=bool))
    ones.save(labels(folder, number=1))
    after = [sample["data_samples"].gt_sem_seg.data for sample in (read(folder, 0), read(folder, 1))]
    assert (before[0] == after[0]).all()
    assert (after[1] == 0).all()


@pytest.mark.parametrize("size", [(1, 1), (300, 1), (1, 300), (3, 2)])
def test_images_of_one_pixel_and_of_one_row(write_folder, size: tuple[int, int]) -> None:
    folder = write_folder()
    Image.new("RGB", size).save(folder / "images" / "training" / "0.png")
    (folder / "images" / "training" / "0.jpg").unlink()
    Image.new("L", size, 2).save(labels(folder))
    opened = open_folder(folder)
    sample = read(folder)
    assert sample["data_samples"].gt_sem_seg.shape == size[::-1]
    assert min(sample["inputs"].shape) >= 1 and max(sample["inputs"].shape) == (32 if size == (1, 1) else 40)
    pipeline = train_pipeline(
        opened.train.label_mapping, crop=(64, 64), resize=(40, 32), resize_ratio=(0.5, 2.0), cat_max_ratio=0.75
    )
    data = PairedImages(opened.train.pairs, opened.classes, pipeline)
    for seed in range(5):  # a crop larger than the image takes what there is; the model's preprocessor pads it
        with seeded(seed):
            sample = data[0]
        assert sample["inputs"].shape[1:] == sample["data_samples"].gt_sem_seg.shape
        assert max(sample["inputs"].shape[1:]) <= 64


def test_thin_images_alone_are_fitted_otherwise_than_by_mmcv() -> None:
    rng = np.random.default_rng(0)
    for height, width in ((32, 40), (7, 100), (200, 3)):
        image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
        ours, theirs = (kind(scale=(200, 50), keep_ratio=True)({"img": image.copy()}) for kind in (FitInto, Resize))
        np.testing.assert_array_equal(ours["img"], theirs["img"])


def test_label_map_of_another_size(write_folder) -> None:
    folder = write_folder()
    Image.new("L", (32, 40), 1).save(labels(folder))
    with pytest.raises(ValueError, match=r"the label map is 32 x 40 pixels, its image .* is 40 x 32"):
        read(folder)


def test_truncated_files_can_be_counted(write_folder) -> None:
    folder = write_folder()
    for path in (labels(folder), folder / "images" / "training" / "1.jpg"):
        path.write_bytes(path.read_bytes()[:60])
    assert "1 unreadable label maps" in open_folder(folder).notes[-1]
    for index, name in enumerate(("0.png", "1.jpg")):
        with pytest.raises(UnreadableImageError, match=f"{name}: unreadable image"):
            read(folder, index)


def test_rotated_photograph_needs_upright_labels(write_folder) -> None:
    folder = write_folder()
    path = folder / "images" / "training" / "0.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: 40 x 32 on disk, 32 x 40 upright
    Image.open(path).save(path, exif=exif)
    with pytest.raises(ValueError, match="is 32 x 40 \\(upright"):
        read(folder)
    label = np.asarray(Image.open(labels(folder)))
    Image.fromarray(np.rot90(label, k=-1)).save(labels(folder))
    sample = read(folder)
    assert sample["inputs"].shape[1:] == (40, 32)
    assert sample["data_samples"].gt_sem_seg.shape == (40, 32)


@pytest.mark.parametrize("mode", ["L", "CMYK", "I;16"])
def test_kinds_of_photographs(write_folder, mode: str) -> None:
    folder = write_folder()
    path = folder / "images" / "training" / "0.jpg"
    path.unlink()
    pixels = np.full((32, 40), 60000, np.uint16) if mode == "I;16" else None
    image = Image.fromarray(pixels) if pixels is not None else Image.new(mode, (40, 32))
    image.save(path.with_suffix(".tif"))
    assert read(folder)["inputs"].shape == (3, 32, 40)


def test_labels_start_at_zero_as_in_mmseg(write_folder) -> None:
    assert decode(np.array([[0, 1, 2, 254, 255]]), from_one(254), Path()).tolist() == [[255, 0, 1, 253, 255]]
    folder = write_folder()
    relabel(labels(folder), 255)
    entry = {"seg_map_path": str(labels(folder)), "reduce_zero_label": True, "label_map": None}
    theirs = LoadAnnotations()({**entry, "seg_fields": []})
    ours = ReadLabelMap(from_one(3))({**entry, "seg_fields": [], "ori_shape": (32, 40)})
    np.testing.assert_array_equal(ours["gt_seg_map"], theirs["gt_seg_map"])
    assert ours["gt_seg_map"].dtype == theirs["gt_seg_map"].dtype


def test_genuine_ade20k_labels_equal_mmseg(real_data: Path) -> None:
    root = real_data / "ade20k_genuine"
    pairs, classes = LAYOUTS["ade20k"].pairs(root, "validation"), read_object_info(root)
    assert classes is not None and len(classes.names) == 150 and classes.names[1] == "building, edifice"
    ours = PairedImages(pairs, classes, val_pipeline(from_one(150), resize=(2048, 512)))
    theirs = ADE20KDataset(
        data_root=str(root),
        data_prefix={"img_path": "images/validation", "seg_map_path": "annotations/validation"},
        pipeline=[LoadAnnotations()],
    )
    assert len(ours) == len(theirs) == 2
    for mine, host in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine["data_samples"].gt_sem_seg.data[0].numpy(), host["gt_seg_map"])
    assert ours.metainfo["palette"] == theirs.metainfo["palette"]


def test_images_are_read_in_bgr(tmp_path: Path) -> None:
    Image.new("RGB", (4, 2), (10, 20, 30)).save(tmp_path / "a.png")
    image = ReadUprightImage()({"img_path": str(tmp_path / "a.png")})["img"]
    assert image.shape == (2, 4, 3)
    assert image[0, 0].tolist() == [30, 20, 10]


def test_evaluation_labels_keep_their_size(write_folder) -> None:
    folder = open_folder(write_folder())
    sample = PairedImages(folder.val.pairs, folder.classes, val_pipeline(from_one(3), resize=(80, 64)))[0]
    assert sample["inputs"].shape == (3, 64, 80)
    assert sample["data_samples"].gt_sem_seg.shape == (32, 40)
    assert sample["data_samples"].ori_shape == (32, 40)
    assert sample["data_samples"].image_id == "0.jpg"


def test_augmentation_follows_the_seed(write_folder) -> None:
    folder = open_folder(write_folder())
    pipeline = train_pipeline(from_one(3), crop=(16, 16), resize=(40, 32), resize_ratio=(0.75, 1.5), cat_max_ratio=0.75)
    data = PairedImages(folder.train.pairs, folder.classes, pipeline)
    drawn = []
    for seed in (1, 1, 2):
        with seeded(seed):
            drawn.append(data[0]["inputs"].numpy())
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert drawn[0].shape != drawn[2].shape or (drawn[0] != drawn[2]).any()


def test_palette(write_folder) -> None:
    folder = open_folder(write_folder())
    theirs = PairedImages(folder.val.pairs, folder.classes, []).palette
    assert theirs.tolist() == palette_of(folder.classes).tolist()  # both drawn by mmseg's rule
    ade = Classes(("a", "b"), ((1, 2, 3), (4, 5, 6)))
    assert PairedImages(folder.val.pairs, ade, []).palette.tolist() == [[1, 2, 3], [4, 5, 6]]
