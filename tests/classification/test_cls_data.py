"""ImageFolder data: what a wrong layout is told, what is counted, and the transforms against timm's."""

from pathlib import Path

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from backbones.weights.normalisation import Normalisation
from classification.config import Augmentation
from classification.data import LabelledImages, eval_transform, open_split, same_classes, train_transform
from engine.images.reading import UnreadableImageError, find_images, read_rgb
from engine.training.seeding import seeded

IDENTITY = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # pixels from 0 to 1


def test_samples(data: Path) -> None:
    folder, notes = open_split(data, "train")
    images = LabelledImages(folder, eval_transform((32, 32), 1.0, IDENTITY))
    assert (len(images), notes) == (6, [])
    image, label, image_id = images[3]
    assert (tuple(image.shape), label, image_id) == ((3, 32, 32), 1, "bee/1.png")
    assert images.path(3) == data / "train" / "bee" / "1.png"


def test_missing_split_says_what_was_found(data: Path, tmp_path: Path) -> None:
    message = r"data: looked for test/<class>/<image>; found train/, val/\. --data names the folder"
    with pytest.raises(FileNotFoundError, match=message):
        open_split(data, "test")
    with pytest.raises(FileNotFoundError, match="absent: looked for train/<class>/<image>; found no such folder"):
        open_split(tmp_path / "absent", "train")


def test_a_flat_folder_of_images_is_told_apart(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "0.png")
    with pytest.raises(FileNotFoundError, match=r"Images without classes are what tools/pretrain\.py takes\."):
        open_split(tmp_path, "train")


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="train: looked for one folder per class; found an empty folder"):
        open_split(tmp_path, "train")


def test_images_without_class_folders(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    for number in range(8):
        Image.new("RGB", (8, 8)).save(tmp_path / "train" / f"{number}.png")
    message = r"one folder per class; found 0\.png, 1\.png, .*5\.png and 2 more"
    with pytest.raises(FileNotFoundError, match=message):
        open_split(tmp_path, "train")


def test_class_folders_without_images(tmp_path: Path) -> None:
    for name in ("ant", "bee"):
        (tmp_path / "train" / name).mkdir(parents=True)
    (tmp_path / "train" / "ant" / "readme.txt").touch()
    with pytest.raises(FileNotFoundError, match="train: 2 class folders, but no image file in any of them"):
        open_split(tmp_path, "train")


def test_what_is_left_out_is_counted(data: Path) -> None:
    train = data / "train"
    (train / "dog").mkdir()
    (train / "elk" / "deep").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(train / "elk" / "deep" / "0.png")
    (train / "loose.png").touch()
    (train / "labels.csv").touch()
    (train / "ant" / "Thumbs.db").touch()
    folder, notes = open_split(data, "train")
    assert folder.classes == ["ant", "bee", "cow", "dog", "elk"]
    assert len(folder.samples) == 7
    assert notes == [
        "train: 1 classes without an image (dog)",
        "train: 2 files that lie in no class folder left out",
        "train: 1 files of no image format left out",
        "train: 1 images lie in sub-folders of their class (elk/deep), which are no classes",
    ]


def test_hidden_and_system_folders_are_no_classes(data: Path) -> None:
    train = data / "train"
    for name in (".ipynb_checkpoints/a.png", "__MACOSX/ant/._0.png", "@eaDir/b.png", "ant/.ipynb_checkpoints/0.png"):
        (train / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(train / name)
    (train / "ant" / "._1.png").touch()
    (train / "lost+found").mkdir()
    folder, notes = open_split(data, "train")
    assert folder.classes == ["ant", "bee", "cow"] and len(folder.samples) == 6
    assert same_classes(folder, open_split(data, "val")[0]) == "3 classes: ant, bee, cow"
    assert notes == [
        "train: 5 images hidden or of the system left out (.ipynb_checkpoints/a.png, @eaDir/b.png, "
        "__MACOSX/ant/._0.png, ant/._1.png, ant/.ipynb_checkpoints/0.png)",
        "train: 4 folders hidden or of the system are no classes (.ipynb_checkpoints, @eaDir, __MACOSX, lost+found)",
    ]


def test_a_level_too_deep_is_refused(data: Path) -> None:
    (data / "train").rename(data / "all")
    (data / "train").mkdir()
    (data / "all").rename(data / "train" / "all")
    (data / "train" / ".cache").mkdir()
    message = (
        r"train: all its images are of one class, 'all'; two are needed to tell apart\. Looked for "
        r"train/<class>/<image>; found \.cache/, all/\. all has the sub-folders ant, bee, cow: if those are the "
        r"classes, move them into .*train\."
    )
    with pytest.raises(ValueError, match=message):
        open_split(data, "train")


def test_images_of_one_class_alone_are_not_trained_on(data: Path) -> None:
    for name in ("bee", "cow"):
        for path in (data / "train" / name).iterdir():
            path.unlink()
    train, notes = open_split(data, "train")
    assert notes == ["train: 2 classes without an image (bee, cow)"]
    with pytest.raises(ValueError, match=r"one class, 'ant' \(none of the 2 other class folders\); two are needed"):
        same_classes(train, open_split(data, "val")[0])


def test_other_classes_in_val_are_refused(data: Path) -> None:
    (data / "val" / "cow").rename(data / "val" / "dog")
    train, val = ImageFolder(str(data / "train")), ImageFolder(str(data / "val"))
    message = r"val: its class folders differ from those of .*train: only in val \['dog'\], only in train \['cow'\]"
    with pytest.raises(ValueError, match=message):
        same_classes(train, val)
    same_classes(train, train)
    (data / "val" / "dog").rename(data / "val" / "Cow")
    message = r"\['cow'\]; for 'Cow' there is 'cow', which differs in its case; make them the same"
    with pytest.raises(ValueError, match=message):
        same_classes(train, ImageFolder(str(data / "val")))


def test_unreadable_image_is_named(data: Path) -> None:
    (data / "train" / "bee" / "1.png").write_bytes(b"")
    images = LabelledImages(open_split(data, "train")[0], eval_transform((32, 32), 1.0, IDENTITY))
    with pytest.raises(UnreadableImageError, match=r"train/bee/1\.png: unreadable image"):
        images[3]


@pytest.mark.parametrize("size", [(300, 400), (400, 260), (100, 90)])
def test_evaluation_equals_timm(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    constants = Normalisation()
    theirs = timm.data.create_transform(
        224, interpolation="bicubic", crop_pct=224 / 256, mean=constants.mean, std=constants.std
    )
    assert "Resize(size=256" in str(theirs) and "CenterCrop" in str(theirs)
    # the same pixels; they divide by 255 before they normalise, in float32, values up to 2.7
    torch.testing.assert_close(
        eval_transform((224, 224), 224 / 256, constants)(image), theirs(image), rtol=0, atol=2e-6
    )


def test_normalisation_by_hand() -> None:
    image = Image.new("RGB", (32, 32), (255, 51, 0))
    made = eval_transform((32, 32), 1.0, Normalisation(mean=(0.5, 0.1, 0.4), std=(0.25, 0.1, 0.2)))(image)
    assert made[:, 5, 7].tolist() == pytest.approx([2.0, 1.0, -2.0], abs=1e-6)


def test_evaluation_of_a_wide_input() -> None:
    image = Image.new("RGB", (90, 50))
    assert eval_transform((32, 64), 224 / 256, IDENTITY)(image).shape == (3, 32, 64)


@pytest.mark.parametrize(
    "augment",
    [
        Augmentation(),
        Augmentation(flip=False, crop_scale=(0.2, 0.8)),
        Augmentation(randaugment="rand-m9-mstd0.5-inc1", erase=1.0),
    ],
)
def test_training_follows_the_seed(augment: Augmentation) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    transform = train_transform((32, 48), augment, Normalisation())
    made = []
    for seed in (1, 1, 2):
        with seeded(seed):
            made.append(transform(image))
    assert made[0].shape == (3, 32, 48) and made[0].dtype == torch.float32
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize(("flip", "least", "most"), [(False, 0, 0), (True, 10, 30)])
def test_flip_is_half_of_the_time(flip: bool, least: int, most: int) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)  # dark on the left, so every crop is
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (64, 64, 3)).copy())
    transform = train_transform((32, 32), Augmentation(flip=flip), IDENTITY)
    flipped = 0
    for seed in range(40):
        with seeded(seed):
            made = transform(image)
        flipped += bool(made[..., 0].mean() > made[..., -1].mean())
    # 40 tosses: 20 with a standard deviation of 3.2
    assert least <= flipped <= most


def test_crop_takes_the_configured_share() -> None:
    ramp = np.linspace(0, 255, 256).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(ramp[None, :, None], (256, 256, 3)).copy())
    transform = train_transform((64, 64), Augmentation(crop_scale=(0.25, 0.25), flip=False), IDENTITY)
    widths = []
    for seed in range(20):
        with seeded(seed):
            made = transform(image)
        widths.append(float(made[..., -1].mean() - made[..., 0].mean()))
    # a quarter of the area at ratios from 3/4 to 4/3: a width of sqrt(0.25 * ratio) of the image, 0.43 to 0.58
    assert 0.41 < min(widths) < max(widths) < 0.6


def test_tensor_crops_are_the_same_crops_nearly_the_same_pixels(real_data: Path) -> None:
    loaders = [train_transform((96, 96), Augmentation(resize=kind), IDENTITY) for kind in ("pillow", "tensor")]
    differences = []
    for seed, path in enumerate(find_images(real_data / "gallery")[:10]):
        made = []
        for load in loaders:
            with seeded(seed):
                made.append(load(read_rgb(path)))
        differences.append((made[0] - made[1]).abs() * 255)
    difference = torch.stack(differences)
    assert difference.shape == (10, 3, 96, 96)
    # both round to bytes after each of two passes, with weights of different precision; other crops would differ by 50
    assert float(difference.mean()) < 0.1 and float((difference > 1.5).double().mean()) < 1e-3


def test_tensor_crops_with_randaugment_and_erasing() -> None:
    augment = Augmentation(resize="tensor", randaugment="rand-m9-mstd0.5-inc1", erase=1.0)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    made = train_transform((32, 48), augment, Normalisation())(image)
    assert made.shape == (3, 32, 48) and made.dtype == torch.float32
