"""A part of the labels: shares of classes from a seed, and lists of images."""

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from classification.config import ClassificationConfig
from classification.subset import fraction_of_classes, list_text, listed_images
from classification.task import build_task
from classification.trained import TrainedClassifier

ROOT = Path("/data/train")
SAMPLES = [(f"/data/train/{name}/{i}.png", label) for label, name in enumerate(("ant", "bee")) for i in range(30)]


def test_share_of_every_class() -> None:
    one, ten, all_of_them = (fraction_of_classes(SAMPLES, ROOT, fraction=s, seed=0) for s in (0.01, 0.1, 1.0))
    assert [sum(label == k for _, label in ten) for k in (0, 1)] == [3, 3]
    assert [sum(label == k for _, label in one) for k in (0, 1)] == [1, 1]  # at least one
    assert set(one) < set(ten) < set(all_of_them) == set(SAMPLES)  # nested
    assert ten == [sample for sample in SAMPLES if sample in ten]  # in the data's order


def test_share_follows_the_seed_and_not_the_order() -> None:
    first = fraction_of_classes(SAMPLES, ROOT, fraction=0.2, seed=1)
    assert set(fraction_of_classes(SAMPLES[::-1], ROOT, fraction=0.2, seed=1)) == set(first)
    assert fraction_of_classes(SAMPLES, ROOT, fraction=0.2, seed=2) != first
    elsewhere = [(path.replace("/data/", "/mnt/"), label) for path, label in SAMPLES]
    moved = fraction_of_classes(elsewhere, Path("/mnt/train"), fraction=0.2, seed=1)
    assert list_text(moved, Path("/mnt/train")) == list_text(first, ROOT)


def test_list_round_trip(tmp_path: Path) -> None:
    kept = fraction_of_classes(SAMPLES, ROOT, fraction=0.1, seed=0)
    (tmp_path / "list.txt").write_text(list_text(kept, ROOT))
    assert listed_images(SAMPLES, ROOT, tmp_path / "list.txt") == kept


def test_list_of_names_alone(tmp_path: Path) -> None:
    """The official lists of ImageNet's 1 % and 10 % name files without their folder."""
    samples = [("/d/n01/n01_10.JPEG", 0), ("/d/n02/n02_7.JPEG", 1)]
    (tmp_path / "list.txt").write_text("n02_7.JPEG\n\n")
    assert listed_images(samples, Path("/d"), tmp_path / "list.txt") == [samples[1]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ant/0.png\nant/99.png\n", "1 of 2 lines name no image of /data/train: ant/99.png"),
        ("3.png\n", r"1 of 1 lines fit several images \(write class/name\) of .*: 3.png"),
        ("ant/1.png\nant/1.png\n", "1 of 2 lines come twice of .*: ant/1.png"),
        ("\n", "names no image"),
    ],
)
def test_bad_lists_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        listed_images(SAMPLES, ROOT, tmp_path / "list.txt")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_lists_in_declared_encodings(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "list.txt").write_bytes("ant/1.png\r\nbee/2.png\r\n".encode(encoding))
    assert listed_images(SAMPLES, ROOT, tmp_path / "list.txt") == [SAMPLES[1], SAMPLES[32]]


@pytest.mark.parametrize(
    ("name", "found", "differs"),
    [
        ("ANT/1.png", "ant/1.png", "case"),
        ("ant\\\\1.png", "ant/1.png", "slashes"),
        ("train/ant/1.png", "ant/1.png", "folder"),
        ("./ant/1.png", "ant/1.png", "folder"),
        ("ant/1.jpg", "ant/1.png", "ending"),
    ],
)
def test_the_image_that_a_list_meant(tmp_path: Path, name: str, found: str, differs: str) -> None:
    (tmp_path / "list.txt").write_text(name.replace("\\\\", "\\"))
    with pytest.raises(ValueError, match=rf"there is '{found}', which differs in its {differs}\.$"):
        listed_images(SAMPLES, ROOT, tmp_path / "list.txt")


def test_a_list_of_one_class_is_refused(config: ClassificationConfig, data: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("ant/0.png\nant/1.png\n")
    with pytest.raises(ValueError, match=r"one class, 'ant' \(none of the 2 other class folders\)"):
        build_task(replace(config, train_list=str(tmp_path / "list.txt")), data=data, init=None)
    (tmp_path / "list.txt").write_text("ant/0.png\nbee/1.png\n")
    notes = build_task(replace(config, train_list=str(tmp_path / "list.txt")), data=data, init=None).facts.data_notes
    assert notes[-1] == "train: 1 classes without an image in that part (cow)"


def test_images_of_both_splits_are_said(config: ClassificationConfig, data: Path) -> None:
    (data / "linked").symlink_to(data / "train")
    notes = build_task(replace(config, val_split="linked"), data=data, init=None).facts.data_notes
    assert notes[-1].startswith(f"6 validation images are training images too ({data}/linked/ant/0.png, ")


def test_task_on_a_part(config: ClassificationConfig, data: Path, tmp_path: Path) -> None:
    task = build_task(replace(config, label_fraction=0.5), data=data, init=None)
    assert (task.facts.train_images, len(task.train_data), task.facts.val_images) == (3, 3, 3)
    assert task.facts.data_notes[1].startswith("train: 3 of 6 images used (50 % of each class, seed 0; list sha256 ")
    _, path = task.finish(tmp_path)
    assert path.name == "train_list.txt" and len(path.read_text().splitlines()) == 3
    listed = build_task(replace(config, train_list=str(path)), data=data, init=None)
    assert listed.train_data.folder.samples == task.train_data.folder.samples
    assert len(build_task(config, data=data, init=None).finish(tmp_path)) == 1


def test_shares_are_checked(config: ClassificationConfig) -> None:
    with pytest.raises(ValueError, match=r"label_fraction is 10; it must be above 0 and at most 1 \(1 % is 0.01\)"):
        replace(config, label_fraction=10)
    with pytest.raises(ValueError, match="label_fraction and train_list were both given"):
        replace(config, label_fraction=0.1, train_list="a.txt")


def test_prediction_of_a_file(config: ClassificationConfig, data: Path, tmp_path: Path) -> None:
    task = build_task(config, data=data, init=None)
    task.model.eval()
    trained = TrainedClassifier(config, model=task.model, classes=task.classes, normalisation=task.normalisation)
    values = trained.predict_image(data / "val" / "bee" / "0.png")
    (result,) = task.predict(task.collate([task.val_data[1]]))
    assert values["classes"] == [task.classes[i] for i in result.values["top5"]]
    assert values["probabilities"][0] == pytest.approx(result.values["probability"], rel=1e-5)  # batches of 1 and 1
    trained.draw_image(data / "val" / "bee" / "0.png", values, tmp_path / "p.png")
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.format == "PNG"
