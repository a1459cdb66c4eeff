"""The mapper: images of every kind, boxes and masks that follow the image, and what leaves the training set."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as rle
import pytest
import torch
from detectron2.data import transforms as T
from PIL import Image

from detection.data.coco import CocoSplit, read_coco
from detection.data.mapping import Mapper, train_data, val_data
from engine.images.reading import UnreadableImageError
from engine.training.seeding import seeded

HEIGHT, WIDTH = 48, 64


def make_split(
    root: Path, image: Image.Image, annotations: list[dict[str, Any]], *, name: str = "a.jpg", **save: Any
) -> CocoSplit:
    """Write one image and its annotations, sized as the upright image, and return them read."""
    (root / "train").mkdir()
    image.save(root / "train" / name, **save)
    size = {"height": HEIGHT, "width": WIDTH}
    content = {
        "images": [{"id": 5, "file_name": name, **size}],
        "annotations": [{"id": n, "image_id": 5, "category_id": 1, **a} for n, a in enumerate(annotations)],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = root / "annotations.json"
    path.write_text(json.dumps(content))
    return read_coco(path, data=root, split="train")


def picture() -> np.ndarray:
    """A dark image with a bright rectangle at rows 8 to 23, columns 16 to 47."""
    image = np.full((HEIGHT, WIDTH, 3), 20, np.uint8)
    image[8:24, 16:48] = (250, 200, 30)
    return image


BOX = {"bbox": [16, 8, 32, 16], "segmentation": [[16, 8, 48, 8, 48, 24, 16, 24]], "iscrowd": 0}


def test_boxes_and_masks_follow_the_image(tmp_path: Path) -> None:
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX], name="a.png")
    data, notes = train_data(split, image_size=64, scale_jitter=(0.4, 2.5), flip=True, masks=True)
    assert notes == () and len(data) == 1
    shown = 0
    for seed in range(30):
        with seeded(seed):
            sample = data[0]
        image, instances = sample["image"], sample["instances"]
        assert image.dtype == torch.uint8 and max(image.shape[1:]) <= 64
        if not len(instances):
            continue  # cropped away
        bright = image[0] > 135
        overlap = (instances.gt_masks.tensor[0] & bright).sum() / (instances.gt_masks.tensor[0] | bright).sum()
        rows, columns = bright.nonzero().T
        box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        # a pixel at each edge: resampling blurs them
        assert (instances.gt_boxes.tensor[0] - box).abs().max() <= 1.0
        assert overlap > 0.8
        shown += 1
    assert shown > 20


def test_the_same_seed_gives_the_same_sample(tmp_path: Path) -> None:
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX])
    data, _ = train_data(split, image_size=64, scale_jitter=(0.5, 2.0), flip=True, masks=True)
    samples = []
    for seed in (1, 1, 2):
        with seeded(seed):
            samples.append(data[0]["image"])
    assert torch.equal(samples[0], samples[1])
    assert samples[0].shape != samples[2].shape or not torch.equal(samples[0], samples[2])


def test_polygons_are_clipped_by_the_crop_as_their_masks_are(tmp_path: Path) -> None:
    """A crop of the rasterised polygon equals the rasterised polygon of the crop."""
    ring = [[10.0, 5.0, 60.0, 3.0, 50.0, 45.0, 30.0, 20.0, 12.0, 44.0]]
    packed = rle.merge(rle.frPyObjects(ring, HEIGHT, WIDTH))
    split = make_split(tmp_path, Image.fromarray(picture()), [{**BOX, "bbox": [10, 3, 50, 42], "segmentation": ring}])
    mapper = Mapper(
        is_train=True,
        augmentations=[T.CropTransform(16, 8, 40, 32)],
        image_format="RGB",
        use_instance_mask=True,
        instance_mask_format="bitmask",
    )
    found = mapper(split.records[0])["instances"].gt_masks.tensor[0].numpy()
    expected = rle.decode(packed)[8:40, 16:56].astype(bool)
    # the rasteriser rounds the outline at the cut: at most its two columns differ in a few pixels
    assert (found != expected).mean() < 0.01


def test_run_lengths_and_crowds(tmp_path: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[8:24, 16:48] = 1
    packed = rle.encode(np.asfortranarray(mask))
    counts = {"size": [HEIGHT, WIDTH], "counts": packed["counts"].decode()}
    crowd = {
        "bbox": [0, 0, 64, 48],
        "segmentation": {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]},
        "iscrowd": 1,
    }
    split = make_split(tmp_path, Image.fromarray(picture()), [{**BOX, "segmentation": counts}, crowd])
    data, _ = train_data(split, image_size=64, scale_jitter=(1.0, 1.0), flip=False, masks=True)
    instances = data[0]["instances"]
    assert instances.gt_boxes.tensor.tolist() == [[16, 8, 48, 24]]
    assert torch.equal(instances.gt_masks.tensor[0], torch.from_numpy(mask.astype(bool)))
    assert [a["iscrowd"] for a in split.ground_truth["annotations"]] == [0, 1]


def test_images_without_objects_are_validated_on_but_not_trained_on(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    images = []
    for n in range(3):
        Image.fromarray(picture()).save(tmp_path / "val" / f"{n}.jpg")
        images.append({"id": n, "file_name": f"{n}.jpg", "height": HEIGHT, "width": WIDTH})
    crowd = {"bbox": [0, 0, 64, 48], "iscrowd": 1}
    content = {
        "images": images,
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "bbox": [16, 8, 32, 16]},
            {"id": 2, "image_id": 2, "category_id": 1, **crowd},
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    path = tmp_path / "v.json"
    path.write_text(json.dumps(content))
    split = read_coco(path, data=tmp_path, split="val")
    data, notes = train_data(split, image_size=64, scale_jitter=(1.0, 1.0), flip=False, masks=False)
    assert notes == ("val: images without an object, not trained on: 2 of 3",)
    assert len(data) == 1 and data.image_id(0).endswith("0.jpg")
    assert len(val_data(split, image_size=64)) == 3


@pytest.mark.parametrize("kind", ["grey", "cmyk", "palette", "grey16"])
def test_images_of_every_kind_become_rgb(tmp_path: Path, kind: str) -> None:
    image = Image.fromarray(picture())
    name = {"cmyk": "a.jpg"}.get(kind, "a.png")
    if kind == "grey16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert({"grey": "L", "cmyk": "CMYK", "palette": "P"}[kind])
    data = val_data(make_split(tmp_path, image, [BOX], name=name), image_size=64)
    sample = data[0]["image"]
    assert sample.shape == (3, 48, 64)
    assert sample[:, 16, 32].float().mean() > 120 > 60 > sample[:, 40, 5].float().mean()


def test_exif_rotation_is_undone(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    stored = Image.fromarray(picture()).transpose(Image.Transpose.ROTATE_90)
    data = val_data(make_split(tmp_path, stored, [BOX], exif=exif), image_size=64)
    sample = data[0]["image"]
    assert sample.shape == (3, 48, 64)
    assert sample[0, 16, 32] > 200 and sample[0, 40, 5] < 60


def test_size_that_differs_from_the_record(tmp_path: Path) -> None:
    turned = Image.fromarray(picture().transpose(1, 0, 2))
    data = val_data(make_split(tmp_path, turned, [BOX]), image_size=64)
    with pytest.raises(
        ValueError, match=r"a\.jpg: the image is 48x64 pixels .* says 64x48\. The annotations have width and height"
    ):
        data[0]


def test_truncated_image(tmp_path: Path) -> None:
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX])
    path = tmp_path / "train" / "a.jpg"
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(UnreadableImageError, match=r"a\.jpg: unreadable image"):
        val_data(split, image_size=64)[0]


def test_scale_jitter_must_ascend(tmp_path: Path) -> None:
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX])
    with pytest.raises(ValueError, match=r"scale_jitter \(2\.0, 0\.1\) must be two positive factors"):
        train_data(split, image_size=64, scale_jitter=(2.0, 0.1), flip=False, masks=True)


@pytest.mark.parametrize("size", [(480, 640), (1200, 900), (37, 1024)])
def test_scales_and_crops_are_detectron2s(size: tuple[int, int], tmp_path: Path) -> None:
    """ViTDet's three transforms in its configuration draw the same sizes and corners from the same seeds."""
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX])
    data, _ = train_data(split, image_size=1024, scale_jitter=(0.1, 2.0), flip=True, masks=True)
    theirs = T.AugmentationList(
        [
            T.RandomFlip(horizontal=True),
            T.ResizeScale(min_scale=0.1, max_scale=2.0, target_height=1024, target_width=1024),
            T.FixedSizeCrop(crop_size=(1024, 1024), pad=False),
        ]
    )
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    sides = []
    for seed in range(12):
        found = []
        for augmentations in (data.mapper.augmentations, theirs):
            augmented = T.AugInput(image)
            with seeded(seed):
                moved = augmentations(augmented).apply_coords(np.array([[0.0, 0.0], [10.0, 20.0]]))
            found.append((augmented.image, moved))
        assert np.array_equal(found[0][0], found[1][0]) and np.array_equal(found[0][1], found[1][1])
        sides.append(max(found[0][0].shape))
    # from 0.1 of the square upwards, cut at the square
    assert min(sides) < 512 and max(sides) == 1024 and min(sides) >= 102


def test_an_image_of_another_size_than_its_record(tmp_path: Path) -> None:
    split = make_split(tmp_path, Image.fromarray(picture()), [BOX])
    Image.fromarray(picture()[:40]).save(tmp_path / "train" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg: the image is 64x40 pixels .* annotation file says 64x48\.$"):
        val_data(split, image_size=64)[0]
